"""SkyReels V2, also with a timestep a frame, all frames seen or the earlier ones alone."""

from __future__ import annotations

from functools import partial

import torch
from diffusers import SkyReelsV2Transformer3DModel
from torch import nn

from tests.tiny_hosts.host import HEADS, LEVEL, Draws, Inputs, linear_timesteps, tiny_host

FRAMES, ROWS, COLUMNS = 4, 3, 2
TOKENS = FRAMES * ROWS * COLUMNS


def build(num_frame_per_block: int = 1) -> nn.Module:
    return SkyReelsV2Transformer3DModel(
        num_attention_heads=HEADS,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=20,
        freq_dim=32,
        ffn_dim=64,
        num_layers=3,
        rope_max_seq_len=32,
        num_frame_per_block=num_frame_per_block,
    )


def inputs(batch: int, seed: int) -> Inputs:
    draws = Draws(batch, seed)
    return {
        "hidden_states": draws.normal(4, FRAMES, 2 * ROWS, 2 * COLUMNS),
        "timestep": torch.full((batch,), 1000 * LEVEL),
        "encoder_hidden_states": draws.normal(7, 20),
        "attention_kwargs": None,
        "return_dict": False,
    }


def with_timestep_per_frame(given: Inputs, levels: list[float]) -> Inputs:
    """[B, F]: earlier frames are cleaner."""
    frames = torch.arange(1, FRAMES + 1) / FRAMES
    return {**given, "timestep": 1000 * torch.tensor(levels)[:, None] * frames}


def forcing_inputs(batch: int, seed: int) -> Inputs:
    given = with_timestep_per_frame(inputs(batch, seed), [LEVEL] * batch)
    return {**given, "enable_diffusion_forcing": True, "fps": [1] * batch}


HOSTS = (
    tiny_host(SkyReelsV2Transformer3DModel, build, inputs, TOKENS, linear_timesteps(1000)),
    *(
        tiny_host(
            SkyReelsV2Transformer3DModel,
            partial(build, num_frame_per_block=frames),
            forcing_inputs,
            TOKENS,
            with_timestep_per_frame,
            variant,
        )
        for variant, frames in (("diffusion_forcing", 1), ("causal", 2))
    ),
)
