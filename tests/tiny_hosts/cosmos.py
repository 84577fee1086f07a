"""Cosmos Predict: 1 (learned positions in every block), 2, and 2.5 with a timestep a frame."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from diffusers import CosmosTransformer3DModel
from torch import nn

from tests.tiny_hosts.host import HEADS, LEVEL, Draws, Inputs, linear_timesteps, tiny_host

FRAMES, ROWS, COLUMNS = 3, 4, 2
SMALLEST_SIGMA, LARGEST_SIGMA = 0.002, 80.0


def build(**options: Any) -> nn.Module:
    return CosmosTransformer3DModel(
        **{
            "in_channels": 4,
            "out_channels": 4,
            "num_attention_heads": HEADS,
            "attention_head_dim": 12,
            "num_layers": 3,
            "mlp_ratio": 2.0,
            "text_embed_dim": 20,
            "adaln_lora_dim": 16,
            "max_size": (4, 16, 16),
            # With it, the class needs torchvision.
            "concat_padding_mask": False,
            **options,
        }
    )


def inputs(batch: int, seed: int) -> Inputs:
    draws = Draws(batch, seed)
    return {
        "hidden_states": draws.normal(4, FRAMES, 2 * ROWS, 2 * COLUMNS),
        "timestep": torch.full((batch,), LEVEL),
        "encoder_hidden_states": draws.normal(7, 20),
        "fps": 30,
        "padding_mask": None,
        "return_dict": False,
    }


def with_log_sigmas(given: Inputs, levels: list[float]) -> Inputs:
    """A quarter of log sigma, where the level is sigma / (1 + sigma)."""
    level = torch.tensor(levels).double()
    sigma = (level / (1 - level)).clamp(SMALLEST_SIGMA, LARGEST_SIGMA)
    return {**given, "timestep": 0.25 * sigma.log().float()}


def log_sigma_inputs(batch: int, seed: int) -> Inputs:
    return with_log_sigmas(inputs(batch, seed), [LEVEL] * batch)


def with_timestep_per_frame(given: Inputs, levels: list[float]) -> Inputs:
    """[B, 1, F, 1, 1]: the first frame is given and clean."""
    generated = (torch.arange(FRAMES) > 0).view(1, 1, FRAMES, 1, 1)
    return {**given, "timestep": torch.tensor(levels).view(-1, 1, 1, 1, 1) * generated}


def per_frame_inputs(batch: int, seed: int) -> Inputs:
    given = with_timestep_per_frame(inputs(batch, seed), [LEVEL] * batch)
    mask = torch.zeros(batch, 1, FRAMES, 2 * ROWS, 2 * COLUMNS)
    mask[:, :, 0] = 1
    return {**given, "condition_mask": mask, "fps": None}


TOKENS = FRAMES * ROWS * COLUMNS

HOSTS = (
    tiny_host(CosmosTransformer3DModel, build, log_sigma_inputs, TOKENS, with_log_sigmas),
    tiny_host(
        CosmosTransformer3DModel,
        partial(build, extra_pos_embed_type=None),
        inputs,
        TOKENS,
        linear_timesteps(1),
        "cosmos2",
    ),
    tiny_host(
        CosmosTransformer3DModel,
        partial(
            build,
            extra_pos_embed_type=None,
            in_channels=5,
            use_crossattn_projection=True,
            crossattn_proj_in_channels=20,
            encoder_hidden_states_channels=20,
        ),
        per_frame_inputs,
        TOKENS,
        with_timestep_per_frame,
        "per_frame_timestep",
    ),
)
