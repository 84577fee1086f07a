"""LTX-Video and LTX-2 (with sound), also with a timestep a token, as for given frames."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from diffusers import LTX2VideoTransformer3DModel, LTXVideoTransformer3DModel
from torch import Tensor, nn

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
TOKENS = FRAMES * ROWS * COLUMNS
TEXT_ROWS = 7
# As long as the video, at 24 frames and 25 rows of sound per second.
AUDIO_ROWS = 18


def build1() -> nn.Module:
    return LTXVideoTransformer3DModel(
        in_channels=16,
        out_channels=16,
        num_attention_heads=HEADS,
        attention_head_dim=12,
        cross_attention_dim=HEADS * 12,
        num_layers=3,
        caption_channels=20,
    )


def text_mask(batch: int, ragged: bool) -> Tensor:
    mask = ragged_mask(batch, TEXT_ROWS) if ragged else torch.ones(batch, TEXT_ROWS)
    return mask.long()


def inputs1(batch: int, seed: int, ragged: bool = False) -> Inputs:
    draws = Draws(batch, seed)
    return {
        "hidden_states": draws.normal(TOKENS, 16),
        "encoder_hidden_states": draws.normal(TEXT_ROWS, 20),
        "timestep": torch.full((batch,), 1000 * LEVEL),
        "encoder_attention_mask": text_mask(batch, ragged),
        "num_frames": FRAMES,
        "height": ROWS,
        "width": COLUMNS,
        "rope_interpolation_scale": (8 / 25, 32, 32),
        "attention_kwargs": None,
        "return_dict": False,
    }


def build2(**options: Any) -> nn.Module:
    return LTX2VideoTransformer3DModel(
        **{
            "in_channels": 16,
            "out_channels": 16,
            "num_attention_heads": HEADS,
            "attention_head_dim": 12,
            "cross_attention_dim": HEADS * 12,
            "audio_in_channels": 14,
            "audio_out_channels": 14,
            "audio_num_attention_heads": HEADS,
            "audio_attention_head_dim": 8,
            "audio_cross_attention_dim": HEADS * 8,
            "num_layers": 3,
            "caption_channels": 20,
            **options,
        }
    )


def inputs2(batch: int, seed: int, ragged: bool = False) -> Inputs:
    draws = Draws(batch, seed)
    return {
        "hidden_states": draws.normal(TOKENS, 16),
        "audio_hidden_states": draws.normal(AUDIO_ROWS, 14),
        "encoder_hidden_states": draws.normal(TEXT_ROWS, 20),
        "audio_encoder_hidden_states": draws.normal(TEXT_ROWS, 20),
        "timestep": torch.full((batch,), 1000 * LEVEL),
        "sigma": torch.full((batch,), 1000 * LEVEL),
        "encoder_attention_mask": text_mask(batch, ragged),
        "audio_encoder_attention_mask": text_mask(batch, ragged),
        "num_frames": FRAMES,
        "height": ROWS,
        "width": COLUMNS,
        "fps": 24.0,
        "audio_num_frames": AUDIO_ROWS,
        "isolate_modalities": False,
        "use_cross_timestep": False,
        "attention_kwargs": None,
        "return_dict": False,
    }


def with_timesteps2(given: Inputs, levels: list[float]) -> Inputs:
    timesteps = 1000 * torch.tensor(levels)
    return {**given, "timestep": timesteps, "sigma": timesteps.clone()}


def per_token(levels: list[float]) -> Tensor:
    """[B, N]: tokens of the first frame are given and clean."""
    return 1000 * torch.tensor(levels)[:, None] * (torch.arange(TOKENS) >= ROWS * COLUMNS)


def with_timesteps_per_token1(given: Inputs, levels: list[float]) -> Inputs:
    return {**given, "timestep": per_token(levels)}


def with_timesteps_per_token2(given: Inputs, levels: list[float]) -> Inputs:
    timesteps = 1000 * torch.tensor(levels)
    return {
        **given,
        "timestep": per_token(levels),
        "audio_timestep": timesteps,
        "sigma": timesteps.clone(),
    }


def per_token_inputs1(batch: int, seed: int) -> Inputs:
    return with_timesteps_per_token1(inputs1(batch, seed), [LEVEL] * batch)


def per_token_inputs2(batch: int, seed: int) -> Inputs:
    return with_timesteps_per_token2(inputs2(batch, seed), [LEVEL] * batch)


# LTX-2.3: gates, modulated cross-attention, other rotary tables.
build23 = partial(
    build2,
    rope_type="split",
    gated_attn=True,
    audio_gated_attn=True,
    cross_attn_mod=True,
    audio_cross_attn_mod=True,
)

HOSTS = (
    *(
        tiny_host(LTXVideoTransformer3DModel, build1, inputs, TOKENS, with_timesteps, variant)
        for variant, inputs, with_timesteps in (
            ("", inputs1, linear_timesteps(1000)),
            ("ragged", partial(inputs1, ragged=True), linear_timesteps(1000)),
            ("per_token_timestep", per_token_inputs1, with_timesteps_per_token1),
        )
    ),
    *(
        tiny_host(LTX2VideoTransformer3DModel, build, inputs, TOKENS, with_timesteps, variant)
        for variant, build, inputs, with_timesteps in (
            ("", build2, inputs2, with_timesteps2),
            ("ragged", build2, partial(inputs2, ragged=True), with_timesteps2),
            ("per_token_timestep", build2, per_token_inputs2, with_timesteps_per_token2),
            ("ltx23", build23, inputs2, with_timesteps2),
        )
    ),
)
