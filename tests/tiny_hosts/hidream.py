"""HiDream: experts in the feed-forward; images that are not square are padded to the largest."""

from __future__ import annotations

from functools import partial

import torch
from diffusers import HiDreamImageTransformer2DModel
from torch import nn

from tests.tiny_hosts.host import HEADS, LEVEL, Draws, Inputs, linear_timesteps, tiny_host

DOUBLE_BLOCKS, SINGLE_BLOCKS = 2, 3
LLAMA_LAYERS = 3


def build() -> nn.Module:
    return HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        num_layers=DOUBLE_BLOCKS,
        num_single_layers=SINGLE_BLOCKS,
        attention_head_dim=12,
        num_attention_heads=HEADS,
        caption_channels=[20, 18],
        text_emb_dim=16,
        axes_dims_rope=(4, 4, 4),
        max_resolution=(12, 12),
        llama_layers=[0, 1, 2, 2, 2],
    )


def inputs(batch: int, seed: int, height: int, width: int) -> Inputs:
    draws = Draws(batch, seed)
    return {
        "hidden_states": draws.normal(4, height, width),
        "timesteps": torch.full((batch,), 1000 * LEVEL),
        "encoder_hidden_states_t5": draws.normal(5, 20),
        # Layers before samples.
        "encoder_hidden_states_llama3": draws.normal(LLAMA_LAYERS, 7, 18).transpose(0, 1),
        "pooled_embeds": draws.normal(16),
        "attention_kwargs": None,
        "return_dict": False,
    }


HOSTS = tuple(
    tiny_host(
        HiDreamImageTransformer2DModel,
        build,
        partial(inputs, height=2 * rows, width=2 * columns),
        rows * columns,
        linear_timesteps(1000, argument="timesteps"),
        variant,
    )
    for variant, rows, columns in (("", 6, 4), ("square", 5, 5))
)
