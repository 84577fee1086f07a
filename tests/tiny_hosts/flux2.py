"""Flux 2, also with rows of a reference image behind those of the image."""

from __future__ import annotations

from functools import partial

import torch
from diffusers import Flux2Transformer2DModel
from torch import Tensor, nn

from tests.tiny_hosts.host import (
    HEADS,
    LEVEL,
    Draws,
    Inputs,
    linear_timesteps,
    tiny_host,
)

TEXT_ROWS = 7
IMAGE = (6, 4)
REFERENCE = (3, 5)


def build() -> nn.Module:
    return Flux2Transformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=16,
        num_attention_heads=HEADS,
        joint_attention_dim=20,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
    )


def ids(image: int, rows: int, columns: int, text_rows: int = 1) -> Tensor:
    """Int64 [rows, 4]: image, row, column, place in the text."""
    return torch.cartesian_prod(
        torch.tensor([image]), torch.arange(rows), torch.arange(columns), torch.arange(text_rows)
    )


def inputs(batch: int, seed: int, grids: tuple[tuple[int, int], ...]) -> Inputs:
    draws = Draws(batch, seed)
    images = torch.cat([ids(10 * image, *grid) for image, grid in enumerate(grids)])
    return {
        "hidden_states": draws.normal(len(images), 16),
        "timestep": torch.full((batch,), LEVEL),
        "guidance": torch.full((batch,), 4.0),
        "encoder_hidden_states": draws.normal(TEXT_ROWS, 20),
        "txt_ids": ids(0, 1, 1, TEXT_ROWS).expand(batch, -1, -1),
        "img_ids": images.expand(batch, -1, -1),
        "joint_attention_kwargs": None,
        "return_dict": False,
    }


HOSTS = tuple(
    tiny_host(
        Flux2Transformer2DModel,
        build,
        partial(inputs, grids=grids),
        sum(rows * columns for rows, columns in grids),
        linear_timesteps(1),
        variant,
    )
    for variant, grids in (("", (IMAGE,)), ("reference", (IMAGE, REFERENCE)))
)
