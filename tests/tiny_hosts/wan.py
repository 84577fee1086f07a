"""Wan, also from an image and with a timestep a token (2.2 TI2V); VACE, Animate, ChronoEdit."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from diffusers import (
    ChronoEditTransformer3DModel,
    WanAnimateTransformer3DModel,
    WanTransformer3DModel,
    WanVACETransformer3DModel,
)
from torch import nn

from tests.tiny_hosts.host import (
    HEADS,
    LEVEL,
    Draws,
    Inputs,
    linear_timesteps,
    tiny_host,
)

FRAMES, ROWS, COLUMNS = 3, 4, 2
TOKENS = FRAMES * ROWS * COLUMNS
LATENTS = (FRAMES, 2 * ROWS, 2 * COLUMNS)
CHANNELS = 4
# The class takes the last 512 rows of text and image embeddings as the text.
IMAGE_TO_VIDEO_TEXT_ROWS = 512


# Of image to video: beside the noise a mask of four channels and the given frames.
IMAGE_CHANNELS = CHANNELS + 4 + CHANNELS
IMAGE_EMBEDDING = {
    "in_channels": IMAGE_CHANNELS,
    "image_dim": 18,
    "added_kv_proj_dim": HEADS * 12,
}
VACE_LAYERS = [0, 2]
VACE_CHANNELS = 10


def build(cls: type[nn.Module] = WanTransformer3DModel, **options: Any) -> nn.Module:
    return cls(
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


def build_vace() -> nn.Module:
    return build(WanVACETransformer3DModel, vace_layers=VACE_LAYERS, vace_in_channels=VACE_CHANNELS)


def build_animate() -> nn.Module:
    return build(
        WanAnimateTransformer3DModel,
        **IMAGE_EMBEDDING,
        latent_channels=CHANNELS,
        motion_encoder_channel_sizes={"4": 8, "8": 8, "16": 8},
        motion_encoder_size=16,
        motion_style_dim=16,
        motion_dim=6,
        motion_encoder_dim=16,
        face_encoder_hidden_dim=16,
        face_encoder_num_heads=HEADS,
        inject_face_latents_blocks=3,
    )


def inputs(batch: int, seed: int, channels: int = CHANNELS, text_rows: int = 7) -> Inputs:
    draws = Draws(batch, seed)
    return {
        "hidden_states": draws.normal(channels, *LATENTS),
        "timestep": torch.full((batch,), 1000 * LEVEL),
        "encoder_hidden_states": draws.normal(text_rows, 20),
        "attention_kwargs": None,
        "return_dict": False,
    }


def image_to_video_inputs(batch: int, seed: int) -> Inputs:
    given = inputs(batch, seed, IMAGE_CHANNELS, IMAGE_TO_VIDEO_TEXT_ROWS)
    return {**given, "encoder_hidden_states_image": Draws(batch, seed + 1).normal(5, 18)}


def animate_inputs(batch: int, seed: int) -> Inputs:
    draws = Draws(batch, seed + 2)
    return {
        **image_to_video_inputs(batch, seed),
        # The first frame is the reference image.
        "pose_hidden_states": draws.normal(CHANNELS, FRAMES - 1, *LATENTS[1:]),
        "face_pixel_values": draws.normal(3, 4 * (FRAMES - 2) + 1, 16, 16),
        "motion_encode_batch_size": None,
    }


def vace_inputs(batch: int, seed: int) -> Inputs:
    return {
        **inputs(batch, seed),
        "control_hidden_states": Draws(batch, seed + 1).normal(VACE_CHANNELS, *LATENTS),
        "control_hidden_states_scale": torch.ones(len(VACE_LAYERS)),
    }


def with_timestep_per_token(given: Inputs, levels: list[float]) -> Inputs:
    """[B, N]: tokens of the first frame are given and clean."""
    generated = torch.arange(TOKENS) >= ROWS * COLUMNS
    return {**given, "timestep": 1000 * torch.tensor(levels)[:, None] * generated}


def per_token_inputs(batch: int, seed: int) -> Inputs:
    return with_timestep_per_token(inputs(batch, seed), [LEVEL] * batch)


HOSTS = tuple(
    tiny_host(cls, build, inputs, TOKENS, with_timesteps, variant)
    for cls, build, inputs, with_timesteps, variant in (
        (WanTransformer3DModel, build, inputs, linear_timesteps(1000), ""),
        (
            WanTransformer3DModel,
            partial(build, **IMAGE_EMBEDDING),
            image_to_video_inputs,
            linear_timesteps(1000),
            "i2v",
        ),
        (
            WanTransformer3DModel,
            build,
            per_token_inputs,
            with_timestep_per_token,
            "per_token_timestep",
        ),
        (WanVACETransformer3DModel, build_vace, vace_inputs, linear_timesteps(1000), ""),
        (WanAnimateTransformer3DModel, build_animate, animate_inputs, linear_timesteps(1000), ""),
        (
            ChronoEditTransformer3DModel,
            partial(build, ChronoEditTransformer3DModel, **IMAGE_EMBEDDING),
            image_to_video_inputs,
            linear_timesteps(1000),
            "",
        ),
    )
)
