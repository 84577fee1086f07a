"""AuraFlow: eight register rows stand before those of the text."""

from __future__ import annotations

import torch
from diffusers import AuraFlowTransformer2DModel
from torch import nn

from tests.tiny_hosts.host import (
    HEADS,
    LEVEL,
    Draws,
    Inputs,
    linear_timesteps,
    tiny_host,
)


def build() -> nn.Module:
    return AuraFlowTransformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        num_mmdit_layers=2,
        num_single_dit_layers=3,
        attention_head_dim=8,
        num_attention_heads=HEADS,
        joint_attention_dim=20,
        caption_projection_dim=HEADS * 8,
        out_channels=4,
        pos_embed_max_size=8 * 8,
    )


def inputs(batch: int, seed: int) -> Inputs:
    draws = Draws(batch, seed)
    return {
        "hidden_states": draws.normal(4, 12, 8),
        "encoder_hidden_states": draws.normal(7, 20),
        "timestep": torch.full((batch,), LEVEL),
        "attention_kwargs": None,
        "return_dict": False,
    }


HOSTS = (tiny_host(AuraFlowTransformer2DModel, build, inputs, 6 * 4, linear_timesteps(1)),)
