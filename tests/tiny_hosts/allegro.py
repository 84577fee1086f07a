"""Allegro: rotary tables go with the places of tokens."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from diffusers import AllegroTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed_allegro
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
    return AllegroTransformer3DModel(
        num_attention_heads=HEADS,
        attention_head_dim=12,
        num_layers=3,
        cross_attention_dim=HEADS * 12,
        sample_height=2 * ROWS,
        sample_width=2 * COLUMNS,
        sample_frames=FRAMES,
        caption_channels=20,
    )


def rotary() -> tuple[Any, Any]:
    """Tables, (cos, sin) an axis; places int64 [1, N] an axis."""
    grid = (ROWS, COLUMNS)
    tables = get_3d_rotary_pos_embed_allegro(12, ((0, 0), grid), grid, FRAMES)[:3]
    places = torch.cartesian_prod(*(torch.arange(size) for size in (FRAMES, *grid)))
    return tables, tuple(places.T.reshape(3, 1, -1))


def inputs(batch: int, seed: int, ragged: bool) -> Inputs:
    draws = Draws(batch, seed)
    mask = ragged_mask(batch, TEXT_ROWS) if ragged else torch.ones(batch, TEXT_ROWS)
    return {
        "hidden_states": draws.normal(4, FRAMES, 2 * ROWS, 2 * COLUMNS),
        "encoder_hidden_states": draws.normal(TEXT_ROWS, 20),
        "encoder_attention_mask": mask.long(),
        "timestep": torch.full((batch,), round(1000 * LEVEL)),
        "image_rotary_emb": rotary(),
        "return_dict": False,
    }


HOSTS = tuple(
    tiny_host(
        AllegroTransformer3DModel,
        build,
        partial(inputs, ragged=bool(variant)),
        FRAMES * ROWS * COLUMNS,
        linear_timesteps(1000, dtype=torch.long),
        variant,
    )
    for variant in ("", "ragged")
)
