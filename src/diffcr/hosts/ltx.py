"""LTX-Video (diffusers/models/transformers/transformer_ltx.py).

With a timestep per token, as for given frames, modulations have a row per token. Given frames that
a pipeline appends as further tokens are routed with the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.family import Family, Grid
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.prompt import Prompt, of_embeds_and_mask

# Of the published autoencoder, and of the pipeline's videos.
FRAMES_PER_LATENT, PIXELS_PER_LATENT, FRAME_RATE = 8, (32, 32), 25

LTX_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=(
        *("hidden_states", "encoder_hidden_states", "encoder_attention_mask"),
        *("temb", "image_rotary_emb"),
    ),
    token_inputs=(TokenInput("image_rotary_emb"), TokenInput("temb")),
    first_linear="attn1.to_q",
    mlp="ff",
)


def _grid(transformer: Any, arguments: Mapping[str, Any]) -> Grid:
    """From the sizes that a call names; with appended frames a place follows from nothing."""
    sides = [arguments.get(side) or 0 for side in ("height", "width", "num_frames")]
    tokens: int = arguments["hidden_states"].shape[1]
    return Grid(*sides) if prod(sides) == tokens else Grid(0, 0, beside=tokens)


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    """A latent is a token; its place is told in seconds and pixels."""
    frames, rows, columns = latents.shape[2:]
    return {
        "hidden_states": latents.flatten(2).transpose(1, 2),
        "encoder_hidden_states": prompt.embeds,
        "timestep": timesteps,
        "encoder_attention_mask": prompt.mask,
        "num_frames": frames,
        "height": rows,
        "width": columns,
        "rope_interpolation_scale": (FRAMES_PER_LATENT / FRAME_RATE, *PIXELS_PER_LATENT),
        "attention_kwargs": None,
        "return_dict": False,
    }


def _prediction(transformer: Any, output: Tensor, latents: Tensor) -> Tensor:
    predicted: Tensor = output.transpose(1, 2).unflatten(2, latents.shape[2:])
    return predicted


def _blank_prompt(config: Any, text_tokens: int) -> Prompt:
    mask = torch.ones(1, text_tokens, dtype=torch.int64)
    return Prompt(torch.zeros(1, text_tokens, config.caption_channels), mask)


LTX = Family(
    name="ltx",
    transformer_class="diffusers.models.transformers.transformer_ltx.LTXVideoTransformer3DModel",
    block_groups={"transformer_blocks": LTX_BLOCK},
    call_inputs=_inputs,
    encode_prompt=of_embeds_and_mask,
    prediction=_prediction,
    blank_prompt=_blank_prompt,
    video=True,
    grid=_grid,
    lora_targets=(
        *("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0"),
        *("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"),
    ),
)
