"""Helios, whose blocks see rows of the past before those of the video
(diffusers/models/transformers/transformer_helios.py)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.calls import text_inputs
from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.lora_targets import SELF_AND_CROSS_ATTENTION
from diffcr.hosts.prompt import Prompt, blank_text, of_embeds

# Frames of the past at a quarter and at half of their size, from the oldest; the first frame of all
# and the last one have their full size.
_LONG, _MID = 16, 2

HELIOS_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "encoder_hidden_states", "temb", "rotary_emb"),
    rows="last",
    token_inputs=(TokenInput("rotary_emb"), TokenInput("temb", of_ndim=4)),
    counts=("original_context_length",),
    first_linear="attn1.to_q",
    mlp="ffn",
)


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    """Of the first part of a video, whose past is zeros."""
    batch, channels, frames, *sides = latents.shape
    places = torch.arange(_LONG + _MID + 2 + frames, device=latents.device)[None]
    first, long, mid, last, present = places.split([1, _LONG, _MID, 1, frames], 1)
    given = text_inputs(transformer, latents, timesteps, prompt)
    past = {"long": long, "mid": mid, "short": torch.cat([first, last], 1)}
    for name, where in past.items():
        frames_then = where.shape[1]
        given[f"latents_history_{name}"] = latents.new_zeros(batch, channels, frames_then, *sides)
        given[f"indices_latents_history_{name}"] = where
    return {**given, "indices_hidden_states": present}


HELIOS = Family(
    name="helios",
    transformer_class="diffusers.models.transformers.transformer_helios.HeliosTransformer3DModel",
    block_groups={"blocks": HELIOS_BLOCK},
    call_inputs=_inputs,
    encode_prompt=of_embeds,
    blank_prompt=partial(blank_text, channels="text_dim"),
    video=True,
    lora_targets=(
        *SELF_AND_CROSS_ATTENTION,
        *("ffn.net.0.proj", "ffn.net.2"),
    ),
)
