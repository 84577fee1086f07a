"""OmniGen: one sequence [padding, text and given images, timestep, image]."""

from __future__ import annotations

from functools import partial

import torch
from diffusers import OmniGenTransformer2DModel
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

TOKENS = 6 * 4
TEXT_ROWS = 9
WORDS = 16
# Of the reference image, 4 x 8 latents, among the text's rows.
REFERENCE_ROWS = [1, 1 + 2 * 4]


def build() -> nn.Module:
    return OmniGenTransformer2DModel(
        in_channels=4,
        hidden_size=HEADS * 12,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        intermediate_size=80,
        num_layers=3,
        pad_token_id=0,
        vocab_size=WORDS,
        rope_scaling={"short_factor": [1.0] * 6, "long_factor": [1.0] * 6},
        pos_embed_max_size=8,
        time_step_dim=32,
    )


def attention_mask(text: Tensor) -> Tensor:
    """Float [B, S, S], 1 where a row (dim 1) sees another: text sees what is before it."""
    batch, text_rows = text.shape
    rows = text_rows + 1 + TOKENS
    seen = torch.ones(rows, rows).tril()
    seen[-TOKENS:] = 1
    valid = torch.cat([text, torch.ones(batch, 1 + TOKENS).bool()], dim=1)
    # Rows of padding see all, so that nothing is divided by zero.
    return torch.where(valid[:, :, None], seen * valid[:, None, :], 1.0)


def inputs(batch: int, seed: int, variant: str) -> Inputs:
    draws = Draws(batch, seed)
    ragged = variant == "ragged"
    text = ragged_mask(batch, TEXT_ROWS).flip(1) if ragged else torch.ones(batch, TEXT_ROWS).bool()
    words = 1 + (draws.normal(TEXT_ROWS).abs() * WORDS).long() % (WORDS - 1)
    mask = attention_mask(text)
    images, sizes = [], {}
    if variant == "reference":
        images = list(draws.normal(1, 4, 4, 8))
        sizes = {sample: [REFERENCE_ROWS] for sample in range(batch)}
        mask[:, slice(*REFERENCE_ROWS), slice(*REFERENCE_ROWS)] = 1
    return {
        "hidden_states": draws.normal(4, 12, 8),
        "timestep": 1 - torch.full((batch,), LEVEL),
        "input_ids": words * text,
        "input_img_latents": images,
        "input_image_sizes": sizes,
        "attention_mask": mask,
        "position_ids": (
            torch.cat([text, torch.ones(batch, 1 + TOKENS).bool()], dim=1).cumsum(1) - 1
        ).clamp(min=0),
        "return_dict": False,
    }


HOSTS = tuple(
    tiny_host(
        OmniGenTransformer2DModel,
        build,
        partial(inputs, variant=variant),
        TOKENS,
        linear_timesteps(noisy=0, clean=1),
        variant,
    )
    for variant in ("", "ragged", "reference")
)
