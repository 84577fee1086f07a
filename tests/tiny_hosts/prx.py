"""PRX: text rows are keys alone."""

from __future__ import annotations

from functools import partial

import torch
from diffusers import PRXTransformer2DModel
from torch import nn

from tests.tiny_hosts.host import (
    HEADS,
    LEVEL,
    Draws,
    Inputs,
    linear_timesteps,
    ragged_mask,
    tiny_host,
)

TEXT_ROWS = 7


def build() -> nn.Module:
    return PRXTransformer2DModel(
        in_channels=4,
        patch_size=2,
        context_in_dim=20,
        hidden_size=HEADS * 12,
        num_heads=HEADS,
        depth=3,
        axes_dim=[6, 6],
    )


def inputs(batch: int, seed: int, ragged: bool) -> Inputs:
    draws = Draws(batch, seed)
    return {
        "hidden_states": draws.normal(4, 12, 8),
        "timestep": torch.full((batch,), LEVEL),
        "encoder_hidden_states": draws.normal(TEXT_ROWS, 20),
        "attention_mask": (
            ragged_mask(batch, TEXT_ROWS) if ragged else torch.ones(batch, TEXT_ROWS).bool()
        ),
        "return_dict": False,
    }


HOSTS = tuple(
    tiny_host(
        PRXTransformer2DModel,
        build,
        partial(inputs, ragged=bool(variant)),
        6 * 4,
        linear_timesteps(1),
        variant,
    )
    for variant in ("", "ragged")
)
