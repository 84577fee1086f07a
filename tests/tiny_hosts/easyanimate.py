"""EasyAnimate: the last blocks have one set of weights for text and video."""

from __future__ import annotations

import torch
from diffusers import EasyAnimateTransformer3DModel
from torch import nn

from tests.tiny_hosts.host import HEADS, LEVEL, Draws, Inputs, linear_timesteps, tiny_host

FRAMES, ROWS, COLUMNS = 3, 4, 2


def build() -> nn.Module:
    return EasyAnimateTransformer3DModel(
        num_attention_heads=HEADS,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        patch_size=2,
        num_layers=4,
        mmdit_layers=2,
        time_embed_dim=32,
        text_embed_dim=20,
    )


def inputs(batch: int, seed: int) -> Inputs:
    draws = Draws(batch, seed)
    return {
        "hidden_states": draws.normal(4, FRAMES, 2 * ROWS, 2 * COLUMNS),
        "timestep": torch.full((batch,), 1000 * LEVEL),
        "encoder_hidden_states": draws.normal(7, 20),
        "return_dict": False,
    }


HOSTS = (
    tiny_host(
        EasyAnimateTransformer3DModel,
        build,
        inputs,
        FRAMES * ROWS * COLUMNS,
        linear_timesteps(1000),
    ),
)
