"""Flux, and Kontext: rows of a reference image behind those of the image."""

from __future__ import annotations

from functools import partial

import torch
from diffusers import FluxTransformer2DModel
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
    return FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=12,
        num_attention_heads=HEADS,
        joint_attention_dim=20,
        pooled_projection_dim=18,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 4),
    )


def image_ids(rows: int, columns: int, image: int = 0) -> Tensor:
    """[rows * columns, 3]: which image, row, column."""
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).float()
    return torch.cat([torch.full((len(places), 1), float(image)), places], dim=1)


def inputs(batch: int, seed: int, grids: tuple[tuple[int, int], ...] = (IMAGE,)) -> Inputs:
    draws = Draws(batch, seed)
    ids = torch.cat([image_ids(*grid, image) for image, grid in enumerate(grids)])
    return {
        "hidden_states": draws.normal(len(ids), 16),
        "timestep": torch.full((batch,), LEVEL),
        "guidance": torch.full((batch,), 3.5),
        "pooled_projections": draws.normal(18),
        "encoder_hidden_states": draws.normal(TEXT_ROWS, 20),
        "txt_ids": torch.zeros(TEXT_ROWS, 3),
        "img_ids": ids,
        "joint_attention_kwargs": {},
        "return_dict": False,
    }


HOSTS = tuple(
    tiny_host(
        FluxTransformer2DModel,
        build,
        partial(inputs, grids=grids),
        sum(rows * columns for rows, columns in grids),
        linear_timesteps(1),
        variant,
    )
    for variant, grids in (("", (IMAGE,)), ("kontext", (IMAGE, REFERENCE)))
)
