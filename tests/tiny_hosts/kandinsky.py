"""Kandinsky 5: latents with channels last, also with those of a given frame."""

from __future__ import annotations

from functools import partial

import torch
from diffusers import Kandinsky5Transformer3DModel
from torch import nn

from tests.tiny_hosts.host import HEADS, LEVEL, Draws, Inputs, linear_timesteps, tiny_host

FRAMES, ROWS, COLUMNS = 3, 4, 2
TEXT_ROWS = 7
CHANNELS = 4


def build(visual_cond: bool) -> nn.Module:
    return Kandinsky5Transformer3DModel(
        in_visual_dim=CHANNELS,
        in_text_dim=20,
        in_text_dim2=18,
        time_dim=32,
        out_visual_dim=CHANNELS,
        model_dim=HEADS * 12,
        ff_dim=64,
        num_text_blocks=2,
        num_visual_blocks=3,
        axes_dims=(4, 4, 4),
        visual_cond=visual_cond,
    )


def inputs(batch: int, seed: int, visual_cond: bool) -> Inputs:
    draws = Draws(batch, seed)
    # Beside the noise the given frames and their mask.
    channels = 2 * CHANNELS + 1 if visual_cond else CHANNELS
    return {
        "hidden_states": draws.normal(FRAMES, 2 * ROWS, 2 * COLUMNS, channels),
        "encoder_hidden_states": draws.normal(TEXT_ROWS, 20),
        "pooled_projections": draws.normal(18),
        "timestep": torch.full((batch,), 1000 * LEVEL),
        "visual_rope_pos": [torch.arange(size) for size in (FRAMES, ROWS, COLUMNS)],
        "text_rope_pos": torch.arange(TEXT_ROWS),
        "scale_factor": (1.0, 1.0, 1.0),
        "sparse_params": None,
        "return_dict": False,
    }


HOSTS = tuple(
    tiny_host(
        Kandinsky5Transformer3DModel,
        partial(build, visual_cond=bool(variant)),
        partial(inputs, visual_cond=bool(variant)),
        FRAMES * ROWS * COLUMNS,
        linear_timesteps(1000),
        variant,
        # The class rounds its queries and keys to bfloat16, which turns last bits of float32
        # into errors of this size.
        batch_error=1e-3,
    )
    for variant in ("", "visual_cond")
)
