"""CogVideoX, CogView3-Plus, CogView4 and GLM-Image."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from diffusers import (
    CogVideoXTransformer3DModel,
    CogView3PlusTransformer2DModel,
    CogView4Transformer2DModel,
    GlmImageTransformer2DModel,
)
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from torch import Tensor, nn

from tests.tiny_hosts.host import HEADS, LEVEL, Draws, Inputs, linear_timesteps, tiny_host

FRAMES, ROWS, COLUMNS = 3, 4, 2
TEXT_ROWS = 7
# Frames of latents to a token in CogVideoX 1.5.
TOKEN_FRAMES = 2
CODES = 16


def build_cogvideox(**options: Any) -> nn.Module:
    return CogVideoXTransformer3DModel(
        **{
            "num_attention_heads": HEADS,
            "attention_head_dim": 16,
            "in_channels": 4,
            "out_channels": 4,
            "time_embed_dim": 32,
            "text_embed_dim": 20,
            "num_layers": 3,
            "sample_width": 2 * COLUMNS,
            "sample_height": 2 * ROWS,
            "sample_frames": 4 * (FRAMES - 1) + 1,
            "max_text_seq_length": TEXT_ROWS,
            **options,
        }
    )


def rotary_tables() -> tuple[Tensor, Tensor]:
    grid = (ROWS, COLUMNS)
    return get_3d_rotary_pos_embed(16, ((0, 0), grid), grid, FRAMES)


def cogvideox_inputs(batch: int, seed: int, variant: str) -> Inputs:
    draws = Draws(batch, seed)
    frames, channels = (FRAMES * TOKEN_FRAMES, 8) if variant == "v15" else (FRAMES, 4)
    given = {
        "hidden_states": draws.normal(frames, channels, 2 * ROWS, 2 * COLUMNS),
        "encoder_hidden_states": draws.normal(TEXT_ROWS, 20),
        "timestep": torch.full((batch,), round(1000 * LEVEL)),
        "image_rotary_emb": rotary_tables() if variant else None,
        "attention_kwargs": None,
        "return_dict": False,
    }
    return {**given, "ofs": torch.full((1,), 2.0)} if variant == "v15" else given


COGVIEW = {
    "patch_size": 2,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 3,
    "attention_head_dim": 12,
    "num_attention_heads": HEADS,
    "text_embed_dim": 20,
    "time_embed_dim": 32,
    "condition_dim": 8,
}


def cogview_inputs(batch: int, seed: int) -> Inputs:
    draws = Draws(batch, seed)
    return {
        "hidden_states": draws.normal(4, 12, 8),
        "encoder_hidden_states": draws.normal(TEXT_ROWS, 20),
        "timestep": torch.full((batch,), 1000 * LEVEL),
        "original_size": torch.tensor([[96.0, 64.0]]).expand(batch, 2),
        "target_size": torch.tensor([[96.0, 64.0]]).expand(batch, 2),
        "crop_coords": torch.zeros(batch, 2),
        "return_dict": False,
    }


def glm_inputs(batch: int, seed: int) -> Inputs:
    given = cogview_inputs(batch, seed)
    del given["original_size"]
    codes = (Draws(batch, seed + 1).normal(6 * 4).abs() * CODES).long() % CODES
    return {
        **given,
        "timestep": torch.full((batch,), 1000 * LEVEL - 1),
        "prior_token_id": codes,
        "prior_token_drop": torch.zeros_like(codes).bool(),
        "attention_kwargs": None,
        "kv_caches": None,
    }


HOSTS = (
    *(
        tiny_host(
            CogVideoXTransformer3DModel,
            partial(build_cogvideox, **options),
            partial(cogvideox_inputs, variant=variant),
            FRAMES * ROWS * COLUMNS,
            linear_timesteps(1000, dtype=torch.long),
            variant,
        )
        for variant, options in (
            ("", {}),
            ("rotary", {"use_rotary_positional_embeddings": True}),
            (
                "v15",
                {
                    "use_rotary_positional_embeddings": True,
                    "in_channels": 8,
                    "patch_size_t": TOKEN_FRAMES,
                    "patch_bias": False,
                    "ofs_embed_dim": 32,
                },
            ),
        )
    ),
    tiny_host(
        CogView4Transformer2DModel,
        partial(CogView4Transformer2DModel, **COGVIEW, rope_axes_dim=(16, 16)),
        cogview_inputs,
        6 * 4,
        linear_timesteps(1000),
    ),
    tiny_host(
        CogView3PlusTransformer2DModel,
        partial(CogView3PlusTransformer2DModel, **COGVIEW, pos_embed_max_size=8),
        cogview_inputs,
        6 * 4,
        linear_timesteps(1000),
    ),
    tiny_host(
        GlmImageTransformer2DModel,
        partial(GlmImageTransformer2DModel, **COGVIEW, prior_vq_quantizer_codebook_size=CODES),
        glm_inputs,
        6 * 4,
        linear_timesteps(999, clean=-1),
    ),
)
