"""Inputs of transformers that are told a text, and perhaps its mask, beside the latents."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.pipelines.packed import pack_latents
from diffcr.hosts.pipelines.places import image_places
from diffcr.hosts.pipelines.prompt import Prompt


def text_inputs(
    transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt
) -> dict[str, Any]:
    """Of a transformer that is told a text and nothing else."""
    return {
        "hidden_states": latents,
        "timestep": timesteps,
        "encoder_hidden_states": prompt.embeds,
        "return_dict": False,
    }


def masked_text_inputs(
    transformer: Any,
    latents: Tensor,
    timesteps: Tensor,
    prompt: Prompt,
    mask: torch.dtype = torch.int64,
) -> dict[str, Any]:
    """The same with the text's mask, in a dtype `mask`."""
    given = text_inputs(transformer, latents, timesteps, prompt)
    seen = None if prompt.mask is None else prompt.mask.to(mask)
    return {**given, "encoder_attention_mask": seen}


def packed_text_inputs(
    transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt
) -> dict[str, Any]:
    """Of a transformer that is told a text, with latents [B, C, h, w] packed and their places as
    `img_ids`, [N, 3]: picture, row and column."""
    return {
        **text_inputs(transformer, pack_latents(latents), timesteps, prompt),
        "img_ids": image_places(latents),
    }
