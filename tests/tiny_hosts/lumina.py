"""Lumina 2 (each sample's image behind its own text) and Lumina-Next (text by cross-attention)."""

from __future__ import annotations

from functools import partial

import torch
from diffusers import Lumina2Transformer2DModel, LuminaNextDiT2DModel
from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina
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
LARGEST_SIDE = 16


def build2() -> nn.Module:
    return Lumina2Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        hidden_size=HEADS * 12,
        num_layers=3,
        num_refiner_layers=2,
        num_attention_heads=HEADS,
        num_kv_heads=2,
        multiple_of=16,
        axes_dim_rope=(4, 4, 4),
        axes_lens=(32, LARGEST_SIDE, LARGEST_SIDE),
        cap_feat_dim=20,
    )


def build_next() -> nn.Module:
    transformer = LuminaNextDiT2DModel(
        sample_size=16,
        in_channels=4,
        hidden_size=HEADS * 12,
        num_layers=3,
        num_attention_heads=HEADS,
        num_kv_heads=2,
        multiple_of=16,
        cross_attention_dim=20,
    )
    # The class leaves it as memory was.
    nn.init.normal_(transformer.pad_token)
    return transformer


def common(batch: int, seed: int, ragged: bool, mask_name: str) -> Inputs:
    draws = Draws(batch, seed)
    mask = ragged_mask(batch, TEXT_ROWS) if ragged else torch.ones(batch, TEXT_ROWS)
    return {
        "hidden_states": draws.normal(4, 12, 8),
        "timestep": 1 - torch.full((batch,), LEVEL),
        "encoder_hidden_states": draws.normal(TEXT_ROWS, 20),
        mask_name: mask.long(),
        "return_dict": False,
    }


def inputs2(batch: int, seed: int, ragged: bool) -> Inputs:
    return {**common(batch, seed, ragged, "encoder_attention_mask"), "attention_kwargs": {}}


def inputs_next(batch: int, seed: int, ragged: bool) -> Inputs:
    return {
        **common(batch, seed, ragged, "encoder_mask"),
        "image_rotary_emb": get_2d_rotary_pos_embed_lumina(12, LARGEST_SIDE, LARGEST_SIDE),
        "cross_attention_kwargs": {},
    }


HOSTS = tuple(
    tiny_host(
        cls,
        build,
        partial(inputs, ragged=bool(variant)),
        6 * 4,
        linear_timesteps(noisy=0, clean=1),
        variant,
    )
    for cls, build, inputs in (
        (Lumina2Transformer2DModel, build2, inputs2),
        (LuminaNextDiT2DModel, build_next, inputs_next),
    )
    for variant in ("", "ragged")
)
