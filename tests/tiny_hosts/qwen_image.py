"""Qwen-Image, and Edit: rows of a reference image behind those of the image."""

from __future__ import annotations

from functools import partial

import torch
from diffusers import QwenImageTransformer2DModel
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
IMAGE = (1, 6, 4)
REFERENCE = (1, 3, 5)
EDIT = (IMAGE, REFERENCE)


def build(zero_cond_t: bool = False) -> nn.Module:
    return QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=3,
        attention_head_dim=12,
        num_attention_heads=HEADS,
        joint_attention_dim=20,
        axes_dims_rope=(4, 4, 4),
        zero_cond_t=zero_cond_t,
    )


def rows(grids: tuple[tuple[int, int, int], ...]) -> int:
    return sum(f * h * w for f, h, w in grids)


def inputs(
    batch: int,
    seed: int,
    grids: tuple[tuple[int, int, int], ...] = (IMAGE,),
    ragged: bool = False,
) -> Inputs:
    draws = Draws(batch, seed)
    return {
        "hidden_states": draws.normal(rows(grids), 16),
        "timestep": torch.full((batch,), LEVEL),
        "guidance": None,
        "encoder_hidden_states": draws.normal(TEXT_ROWS, 20),
        "encoder_hidden_states_mask": ragged_mask(batch, TEXT_ROWS) if ragged else None,
        "img_shapes": [list(grids)] * batch,
        "attention_kwargs": {},
        "return_dict": False,
    }


HOSTS = tuple(
    tiny_host(
        QwenImageTransformer2DModel,
        partial(build, zero_cond_t=variant == "zero_cond_t"),
        partial(inputs, grids=grids, ragged=variant == "ragged"),
        rows(grids),
        linear_timesteps(1),
        variant,
    )
    for variant, grids in (
        ("", (IMAGE,)),
        ("ragged", (IMAGE,)),
        ("edit", EDIT),
        ("zero_cond_t", EDIT),
    )
)
