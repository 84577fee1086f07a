"""PixArt (text by cross-attention) and DiT (class labels)."""

from __future__ import annotations

from functools import partial

import torch
from diffusers import DiTTransformer2DModel, PixArtTransformer2DModel
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
CLASSES = 10


def build_pixart() -> nn.Module:
    return PixArtTransformer2DModel(
        num_attention_heads=HEADS,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=3,
        cross_attention_dim=HEADS * 8,
        sample_size=8,
        patch_size=2,
        caption_channels=20,
        norm_type="ada_norm_single",
        use_additional_conditions=False,
    )


def pixart_inputs(batch: int, seed: int, ragged: bool) -> Inputs:
    draws = Draws(batch, seed)
    mask = ragged_mask(batch, TEXT_ROWS) if ragged else torch.ones(batch, TEXT_ROWS)
    return {
        "hidden_states": draws.normal(4, 12, 8),
        "encoder_hidden_states": draws.normal(TEXT_ROWS, 20),
        "encoder_attention_mask": mask.long(),
        "timestep": torch.full((batch,), round(1000 * LEVEL)),
        "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
        "return_dict": False,
    }


def build_dit() -> nn.Module:
    return DiTTransformer2DModel(
        num_attention_heads=HEADS,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=3,
        sample_size=10,
        patch_size=2,
        num_embeds_ada_norm=CLASSES,
    )


def dit_inputs(batch: int, seed: int) -> Inputs:
    return {
        # The class puts tokens back into a square.
        "hidden_states": Draws(batch, seed).normal(4, 10, 10),
        "timestep": torch.full((batch,), round(1000 * LEVEL)),
        "class_labels": (seed + torch.arange(batch)) % CLASSES,
        "return_dict": False,
    }


HOSTS = (
    *(
        tiny_host(
            PixArtTransformer2DModel,
            build_pixart,
            partial(pixart_inputs, ragged=bool(variant)),
            6 * 4,
            linear_timesteps(1000, dtype=torch.long),
            variant,
        )
        for variant in ("", "ragged")
    ),
    tiny_host(
        DiTTransformer2DModel,
        build_dit,
        dit_inputs,
        5 * 5,
        linear_timesteps(1000, dtype=torch.long),
    ),
)
