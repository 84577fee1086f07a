"""Sana: a convolution over the grid in every block."""

from __future__ import annotations

from functools import partial

import torch
from diffusers import SanaTransformer2DModel
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
    return SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=HEADS,
        attention_head_dim=8,
        num_layers=3,
        num_cross_attention_heads=HEADS,
        cross_attention_head_dim=8,
        cross_attention_dim=HEADS * 8,
        caption_channels=20,
        sample_size=8,
        patch_size=1,
    )


def inputs(batch: int, seed: int, ragged: bool) -> Inputs:
    draws = Draws(batch, seed)
    mask = ragged_mask(batch, TEXT_ROWS) if ragged else torch.ones(batch, TEXT_ROWS)
    return {
        "hidden_states": draws.normal(4, 6, 4),
        "encoder_hidden_states": draws.normal(TEXT_ROWS, 20),
        "encoder_attention_mask": mask.long(),
        "timestep": torch.full((batch,), 1000 * LEVEL),
        "attention_kwargs": None,
        "return_dict": False,
    }


HOSTS = tuple(
    tiny_host(
        SanaTransformer2DModel,
        build,
        partial(inputs, ragged=bool(variant)),
        6 * 4,
        linear_timesteps(1000),
        variant,
    )
    for variant in ("", "ragged")
)
