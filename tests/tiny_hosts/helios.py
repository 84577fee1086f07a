"""Helios: rows of the past, at three sizes, before those of the video."""

from __future__ import annotations

import torch
from diffusers import HeliosTransformer3DModel
from torch import nn

from tests.tiny_hosts.host import HEADS, LEVEL, Draws, Inputs, linear_timesteps, tiny_host

FRAMES, ROWS, COLUMNS = 3, 4, 2
# Frames of the past: from the oldest, at a quarter, at half and at full size.
HISTORY = {"long": 4, "mid": 2, "short": 2}


def build() -> nn.Module:
    return HeliosTransformer3DModel(
        num_attention_heads=HEADS,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=20,
        freq_dim=32,
        ffn_dim=64,
        num_layers=3,
        rope_dim=(4, 4, 4),
        is_amplify_history=True,
    )


def inputs(batch: int, seed: int) -> Inputs:
    draws = Draws(batch, seed)
    given: Inputs = {
        "hidden_states": draws.normal(4, FRAMES, 2 * ROWS, 2 * COLUMNS),
        "timestep": torch.full((batch,), 1000 * LEVEL),
        "encoder_hidden_states": draws.normal(7, 20),
        "attention_kwargs": None,
        "return_dict": False,
    }
    first = 0
    for name, frames in HISTORY.items():
        given[f"latents_history_{name}"] = draws.normal(4, frames, 2 * ROWS, 2 * COLUMNS)
        given[f"indices_latents_history_{name}"] = torch.arange(first, first + frames)[None]
        first += frames
    given["indices_hidden_states"] = torch.arange(first, first + FRAMES)[None]
    return given


HOSTS = (
    tiny_host(
        HeliosTransformer3DModel,
        build,
        inputs,
        FRAMES * ROWS * COLUMNS,
        linear_timesteps(1000),
    ),
)
