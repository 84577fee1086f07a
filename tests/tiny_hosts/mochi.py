"""Mochi: text rows are narrower than those of the video, timesteps run to the clean video."""

from __future__ import annotations

from functools import partial

import torch
from diffusers import MochiTransformer3DModel
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

FRAMES, ROWS, COLUMNS = 3, 4, 2
TEXT_ROWS = 7


def build() -> nn.Module:
    return MochiTransformer3DModel(
        patch_size=2,
        num_attention_heads=HEADS,
        attention_head_dim=12,
        num_layers=3,
        pooled_projection_dim=32,
        in_channels=4,
        text_embed_dim=16,
        time_embed_dim=32,
        max_sequence_length=TEXT_ROWS,
    )


def inputs(batch: int, seed: int, ragged: bool) -> Inputs:
    draws = Draws(batch, seed)
    return {
        "hidden_states": draws.normal(4, FRAMES, 2 * ROWS, 2 * COLUMNS),
        "encoder_hidden_states": draws.normal(TEXT_ROWS, 16),
        "timestep": torch.full((batch,), 1000 * (1 - LEVEL)),
        "encoder_attention_mask": (
            ragged_mask(batch, TEXT_ROWS) if ragged else torch.ones(batch, TEXT_ROWS).bool()
        ),
        "attention_kwargs": None,
        "return_dict": False,
    }


HOSTS = tuple(
    tiny_host(
        MochiTransformer3DModel,
        build,
        partial(inputs, ragged=bool(variant)),
        FRAMES * ROWS * COLUMNS,
        linear_timesteps(noisy=0, clean=1000),
        variant,
    )
    for variant in ("", "ragged")
)
