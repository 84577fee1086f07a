"""Krea 2: hidden states of several layers of the text model for each text row."""

from __future__ import annotations

from functools import partial

import torch
from diffusers import Krea2Transformer2DModel
from torch import nn

from tests.tiny_hosts.flux import image_ids
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
TEXT_LAYERS = 5


def build() -> nn.Module:
    return Krea2Transformer2DModel(
        in_channels=16,
        num_layers=3,
        attention_head_dim=12,
        num_attention_heads=HEADS,
        num_key_value_heads=2,
        intermediate_size=64,
        timestep_embed_dim=32,
        text_hidden_dim=20,
        num_text_layers=TEXT_LAYERS,
        text_num_attention_heads=2,
        text_num_key_value_heads=2,
        text_intermediate_size=24,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(4, 4, 4),
    )


def inputs(batch: int, seed: int, ragged: bool) -> Inputs:
    draws = Draws(batch, seed)
    mask = ragged_mask(batch, TEXT_ROWS) if ragged else torch.ones(batch, TEXT_ROWS).bool()
    return {
        "hidden_states": draws.normal(6 * 4, 16),
        "encoder_hidden_states": draws.normal(TEXT_ROWS, TEXT_LAYERS, 20),
        "timestep": torch.full((batch,), LEVEL),
        "position_ids": torch.cat([torch.zeros(TEXT_ROWS, 3), image_ids(6, 4)]),
        "encoder_attention_mask": mask,
        "attention_kwargs": None,
        "return_dict": False,
    }


HOSTS = tuple(
    tiny_host(
        Krea2Transformer2DModel,
        build,
        partial(inputs, ragged=bool(variant)),
        6 * 4,
        linear_timesteps(1),
        variant,
    )
    for variant in ("", "ragged")
)
