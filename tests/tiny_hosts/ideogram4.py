"""Ideogram 4: one sequence [padding, text, image] whose rows say what they are."""

from __future__ import annotations

from functools import partial

import torch
from diffusers import Ideogram4Transformer2DModel
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

ROWS, COLUMNS = 6, 4
TOKENS = ROWS * COLUMNS
TEXT_ROWS = 7
# Of a row: what it is, and the segment it sees.
PADDING, IMAGE, TEXT = 0, 2, 3
NO_SEGMENT = -1
# Places of the image stand apart from those of the text.
IMAGE_START = 65536


def build() -> nn.Module:
    return Ideogram4Transformer2DModel(
        in_channels=16,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=HEADS,
        intermediate_size=80,
        adaln_dim=32,
        llm_features_dim=20,
        mrope_section=(4, 2, 2),
    )


def inputs(batch: int, seed: int, ragged: bool) -> Inputs:
    draws = Draws(batch, seed)
    text = ragged_mask(batch, TEXT_ROWS).flip(1) if ragged else torch.ones(batch, TEXT_ROWS).bool()
    text_places = ((text.cumsum(1) - 1) * text)[..., None].expand(-1, -1, 3)
    grid = torch.cartesian_prod(torch.zeros(1).long(), torch.arange(ROWS), torch.arange(COLUMNS))
    rows = torch.cat([text, torch.ones(batch, TOKENS).bool()], dim=1)
    return {
        "hidden_states": torch.cat(
            [torch.zeros(batch, TEXT_ROWS, 16), draws.normal(TOKENS, 16)], dim=1
        ),
        "timestep": 1 - torch.full((batch,), LEVEL),
        "encoder_hidden_states": torch.cat(
            [draws.normal(TEXT_ROWS, 20), torch.zeros(batch, TOKENS, 20)], dim=1
        ),
        "position_ids": torch.cat([text_places, (grid + IMAGE_START).expand(batch, -1, -1)], dim=1),
        "segment_ids": torch.where(rows, 1, NO_SEGMENT),
        "indicator": torch.cat(
            [torch.where(text, TEXT, PADDING), torch.full((batch, TOKENS), IMAGE)], dim=1
        ),
        "attention_kwargs": None,
        "return_dict": False,
    }


HOSTS = tuple(
    tiny_host(
        Ideogram4Transformer2DModel,
        build,
        partial(inputs, ragged=bool(variant)),
        TOKENS,
        linear_timesteps(noisy=0, clean=1),
        variant,
    )
    for variant in ("", "ragged")
)
