"""Stable Diffusion 3 and 3.5."""

from __future__ import annotations

from functools import partial

import torch
from diffusers import SD3Transformer2DModel
from torch import nn

from tests.tiny_hosts.host import (
    HEADS,
    LEVEL,
    Draws,
    Inputs,
    linear_timesteps,
    tiny_host,
)


def build(dual_attention_layers: tuple[int, ...] = (), qk_norm: str | None = None) -> nn.Module:
    return SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=HEADS,
        joint_attention_dim=20,
        caption_projection_dim=HEADS * 8,
        pooled_projection_dim=18,
        pos_embed_max_size=10,
        dual_attention_layers=dual_attention_layers,
        qk_norm=qk_norm,
    )


def inputs(batch: int, seed: int) -> Inputs:
    draws = Draws(batch, seed)
    return {
        "hidden_states": draws.normal(4, 12, 8),
        "encoder_hidden_states": draws.normal(7, 20),
        "pooled_projections": draws.normal(18),
        "timestep": torch.full((batch,), 1000 * LEVEL),
        "joint_attention_kwargs": None,
        "return_dict": False,
    }


HOSTS = (
    tiny_host(SD3Transformer2DModel, build, inputs, 6 * 4, linear_timesteps(1000)),
    tiny_host(
        SD3Transformer2DModel,
        partial(build, dual_attention_layers=(0, 1), qk_norm="rms_norm"),
        inputs,
        6 * 4,
        linear_timesteps(1000),
        "sd35",
    ),
)
