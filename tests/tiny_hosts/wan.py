"""Wan: text to video, image to video, and a timestep a token (Wan 2.2 TI2V)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import nn

from tests.tiny_hosts.host import (
    HEADS,
    LEVEL,
    Draws,
    Inputs,
    TinyHost,
    class_path,
    linear_timesteps,
    seeded,
)

FRAMES, ROWS, COLUMNS = 3, 4, 2
LATENTS = (FRAMES, 2 * ROWS, 2 * COLUMNS)
CHANNELS = 4
# The class takes the last 512 rows of text and image embeddings as the text.
IMAGE_TO_VIDEO_TEXT_ROWS = 512


def build(**options: Any) -> nn.Module:
    return WanTransformer3DModel(
        **{
            "patch_size": (1, 2, 2),
            "num_attention_heads": HEADS,
            "attention_head_dim": 12,
            "in_channels": CHANNELS,
            "out_channels": CHANNELS,
            "text_dim": 20,
            "freq_dim": 32,
            "ffn_dim": 64,
            "num_layers": 3,
            "rope_max_seq_len": 32,
            **options,
        }
    )


def inputs(batch: int, seed: int, channels: int = CHANNELS, text_rows: int = 7) -> Inputs:
    draws = Draws(batch, seed)
    return {
        "hidden_states": draws.normal(channels, *LATENTS),
        "encoder_hidden_states": draws.normal(text_rows, 20),
        "timestep": torch.full((batch,), 1000 * LEVEL),
        "attention_kwargs": None,
        "return_dict": False,
    }


# Beside the noise come a mask of four channels and the given frames.
IMAGE_TO_VIDEO_CHANNELS = CHANNELS + 4 + CHANNELS


def image_to_video_inputs(batch: int, seed: int) -> Inputs:
    given = inputs(batch, seed, IMAGE_TO_VIDEO_CHANNELS, IMAGE_TO_VIDEO_TEXT_ROWS)
    return {**given, "encoder_hidden_states_image": Draws(batch, seed + 1).normal(5, 18)}


def with_timestep_per_token(given: Inputs, levels: list[float]) -> Inputs:
    """[B, N]: tokens of the first frame are given and clean."""
    generated = torch.arange(FRAMES * ROWS * COLUMNS) >= ROWS * COLUMNS
    return {**given, "timestep": 1000 * torch.tensor(levels)[:, None] * generated}


def per_token_inputs(batch: int, seed: int) -> Inputs:
    return with_timestep_per_token(inputs(batch, seed), [LEVEL] * batch)


HOSTS = (
    TinyHost(
        transformer_class=class_path(WanTransformer3DModel),
        make=seeded(build),
        inputs=inputs,
        tokens=FRAMES * ROWS * COLUMNS,
        with_timesteps=linear_timesteps(1000),
    ),
    TinyHost(
        transformer_class=class_path(WanTransformer3DModel),
        make=seeded(
            partial(
                build,
                in_channels=IMAGE_TO_VIDEO_CHANNELS,
                image_dim=18,
                added_kv_proj_dim=HEADS * 12,
            )
        ),
        inputs=image_to_video_inputs,
        tokens=FRAMES * ROWS * COLUMNS,
        variant="i2v",
        with_timesteps=linear_timesteps(1000),
    ),
    TinyHost(
        transformer_class=class_path(WanTransformer3DModel),
        make=seeded(build),
        inputs=per_token_inputs,
        tokens=FRAMES * ROWS * COLUMNS,
        variant="per_token_timestep",
        with_timesteps=with_timestep_per_token,
    ),
)
