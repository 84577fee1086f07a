"""HunyuanVideo with token replace, 1.5 and Framepack, and HunyuanImage."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from diffusers import (
    HunyuanImageTransformer2DModel,
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoFramepackTransformer3DModel,
    HunyuanVideoTransformer3DModel,
)
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
SECOND_TEXT_ROWS = 5
COMMON = {
    "num_attention_heads": HEADS,
    "attention_head_dim": 12,
    "num_refiner_layers": 1,
    "text_embed_dim": 20,
}
VIDEO = {
    **COMMON,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "num_single_layers": 3,
    "pooled_projection_dim": 18,
    "rope_axes_dim": (4, 4, 4),
}
# Frames of the past: two at full size, two at half and four at a quarter.
HISTORY = {"latents_clean": 2, "latents_history_2x": 2, "latents_history_4x": 4}


def text_mask(batch: int, ragged: bool, rows: int = TEXT_ROWS) -> Tensor:
    return (ragged_mask(batch, rows) if ragged else torch.ones(batch, rows)).long()


def build_video(**options: Any) -> nn.Module:
    return HunyuanVideoTransformer3DModel(**VIDEO, **options)


def video_inputs(batch: int, seed: int, variant: str) -> Inputs:
    draws = Draws(batch, seed)
    guided = variant != "token_replace"
    return {
        "hidden_states": draws.normal(4, FRAMES, 2 * ROWS, 2 * COLUMNS),
        "timestep": torch.full((batch,), 1000 * LEVEL),
        "encoder_hidden_states": draws.normal(TEXT_ROWS, 20),
        "encoder_attention_mask": text_mask(batch, ragged=variant == "ragged"),
        "pooled_projections": draws.normal(18),
        "guidance": torch.full((batch,), 6000.0) if guided else None,
        "attention_kwargs": None,
        "return_dict": False,
    }


def build_framepack() -> nn.Module:
    return HunyuanVideoFramepackTransformer3DModel(
        **VIDEO, has_image_proj=True, image_proj_dim=16, has_clean_x_embedder=True
    )


def framepack_inputs(batch: int, seed: int, variant: str) -> Inputs:
    given = video_inputs(batch, seed, variant)
    draws = Draws(batch, seed + 1)
    first = 0
    for name, frames in HISTORY.items():
        given[name] = draws.normal(4, frames, 2 * ROWS, 2 * COLUMNS)
        given[f"indices_{name}"] = torch.arange(first, first + frames)
        first += frames
    given["indices_latents"] = torch.arange(first, first + FRAMES)
    given["image_embeds"] = draws.normal(5, 16)
    return given


def build_video15(task: str = "t2v") -> nn.Module:
    return HunyuanVideo15Transformer3DModel(
        **COMMON,
        task_type=task,
        in_channels=9,
        out_channels=4,
        num_layers=3,
        text_embed_2_dim=18,
        image_embed_dim=16,
        rope_axes_dim=(4, 4, 4),
    )


def second_text(batch: int, seed: int, ragged: bool) -> Inputs:
    return {
        "encoder_hidden_states_2": Draws(batch, seed + 1).normal(SECOND_TEXT_ROWS, 18),
        "encoder_attention_mask_2": text_mask(batch, ragged, SECOND_TEXT_ROWS),
    }


def video15_inputs(batch: int, seed: int, variant: str) -> Inputs:
    draws = Draws(batch, seed)
    ragged = variant == "ragged"
    image = draws.normal(6, 16)
    return {
        # The noise, the given frames and their mask.
        "hidden_states": draws.normal(9, FRAMES, ROWS, COLUMNS),
        "image_embeds": image if variant == "i2v" else torch.zeros_like(image),
        "timestep": torch.full((batch,), 1000 * LEVEL),
        "timestep_r": None,
        "attention_kwargs": None,
        "encoder_hidden_states": draws.normal(TEXT_ROWS, 20),
        "encoder_attention_mask": text_mask(batch, ragged),
        **second_text(batch, seed, ragged),
        "return_dict": False,
    }


def build_image() -> nn.Module:
    return HunyuanImageTransformer2DModel(
        **COMMON,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_single_layers=3,
        text_embed_2_dim=18,
        rope_axes_dim=(6, 6),
    )


def image_inputs(batch: int, seed: int, variant: str) -> Inputs:
    draws = Draws(batch, seed)
    ragged = variant == "ragged"
    return {
        "hidden_states": draws.normal(4, 6, 4),
        "timestep": torch.full((batch,), 1000 * LEVEL),
        "timestep_r": None,
        "guidance": None,
        "attention_kwargs": None,
        "encoder_hidden_states": draws.normal(TEXT_ROWS, 20),
        "encoder_attention_mask": text_mask(batch, ragged),
        **second_text(batch, seed, ragged),
        "return_dict": False,
    }


guided = partial(build_video, guidance_embeds=True)
replacing = partial(build_video, guidance_embeds=False, image_condition_type="token_replace")

HOSTS = tuple(
    tiny_host(
        cls,
        build,
        partial(inputs, variant=variant),
        TOKENS,
        linear_timesteps(1000),
        variant,
    )
    for cls, build, inputs, variant in (
        (HunyuanVideoTransformer3DModel, guided, video_inputs, ""),
        (HunyuanVideoTransformer3DModel, guided, video_inputs, "ragged"),
        (HunyuanVideoTransformer3DModel, replacing, video_inputs, "token_replace"),
        (HunyuanVideo15Transformer3DModel, build_video15, video15_inputs, ""),
        (HunyuanVideo15Transformer3DModel, build_video15, video15_inputs, "ragged"),
        (
            HunyuanVideo15Transformer3DModel,
            partial(build_video15, task="i2v"),
            video15_inputs,
            "i2v",
        ),
        (HunyuanImageTransformer2DModel, build_image, image_inputs, ""),
        (HunyuanImageTransformer2DModel, build_image, image_inputs, "ragged"),
        (HunyuanVideoFramepackTransformer3DModel, build_framepack, framepack_inputs, ""),
        (HunyuanVideoFramepackTransformer3DModel, build_framepack, framepack_inputs, "ragged"),
    )
)
