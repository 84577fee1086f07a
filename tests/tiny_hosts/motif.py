"""Motif-Video, also from an image and with decoder blocks, to which the encoded video is text."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from diffusers import MotifVideoTransformer3DModel
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
FROM_IMAGE = {
    "image_embed_dim": 18,
    "num_decoder_layers": 1,
    "enable_text_cross_attention_dual": True,
    "enable_text_cross_attention_single": True,
}


def build(**options: Any) -> nn.Module:
    return MotifVideoTransformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=HEADS,
        attention_head_dim=12,
        num_layers=2,
        num_single_layers=3,
        text_embed_dim=20,
        rope_axes_dim=(4, 4, 4),
        **options,
    )


def inputs(batch: int, seed: int, variant: str) -> Inputs:
    draws = Draws(batch, seed)
    ragged = variant == "ragged"
    mask = ragged_mask(batch, TEXT_ROWS) if ragged else torch.ones(batch, TEXT_ROWS)
    return {
        # The noise, the given frames and their mask.
        "hidden_states": draws.normal(9, FRAMES, 2 * ROWS, 2 * COLUMNS),
        "timestep": torch.full((batch,), 1000 * LEVEL),
        "encoder_hidden_states": draws.normal(TEXT_ROWS, 20),
        "encoder_attention_mask": mask.long(),
        "image_embeds": draws.normal(5, 18) if variant == "i2v" else None,
        "attention_kwargs": None,
        "return_dict": False,
    }


HOSTS = tuple(
    tiny_host(
        MotifVideoTransformer3DModel,
        partial(build, **options),
        partial(inputs, variant=variant),
        FRAMES * ROWS * COLUMNS,
        linear_timesteps(1000),
        variant,
    )
    for variant, options in (("", {}), ("ragged", {}), ("i2v", FROM_IMAGE))
)
