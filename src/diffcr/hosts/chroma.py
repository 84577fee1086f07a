"""Chroma: FLUX's double blocks, single blocks over one sequence of text and image, and a mask
(diffusers/models/transformers/transformer_chroma.py).

`temb` holds modulations, not tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.calls import pack_latents, text_inputs
from diffcr.hosts.flux import FLUX, FLUX_BLOCK, JOINT_TABLE
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.places import image_places
from diffcr.hosts.prompt import Prompt, blank_text, of_tensors

_TOKEN_INPUTS = (JOINT_TABLE, TokenInput("attention_mask", others="before"))
CHROMA_BLOCK = replace(
    FLUX_BLOCK,
    batched=(*FLUX_BLOCK.batched, "attention_mask"),
    token_inputs=_TOKEN_INPUTS,
)
CHROMA_SINGLE_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "temb", "attention_mask", "joint_attention_kwargs"),
    rows="last",
    token_inputs=_TOKEN_INPUTS,
    first_linear="attn.to_q",
    mlp="act_mlp",
)


def _refuse_checkpointing(arguments: Mapping[str, Any]) -> str | None:
    if arguments.get("attention_mask") is None:
        return None
    return (
        "diffusers hands no mask on to single blocks then; pass attention_mask=None, or call "
        "disable_gradient_checkpointing()"
    )


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    """The image is seen whole, the text where its mask says so."""
    tokens, mask = pack_latents(latents), prompt.mask
    if mask is not None:
        mask = torch.cat([mask.to(latents.dtype), latents.new_ones(tokens.shape[:2])], dim=1)
    return {
        **text_inputs(transformer, tokens, timesteps, prompt),
        "txt_ids": latents.new_zeros(prompt.embeds.shape[1], 3),
        "img_ids": image_places(latents),
        "attention_mask": mask,
        "joint_attention_kwargs": {},
    }


CHROMA = replace(
    FLUX,
    call_inputs=_inputs,
    encode_prompt=partial(of_tensors, names=("embeds", "", "mask")),
    blank_prompt=partial(blank_text, channels="joint_attention_dim"),
    name="chroma",
    transformer_class="diffusers.models.transformers.transformer_chroma.ChromaTransformer2DModel",
    block_groups={
        "transformer_blocks": CHROMA_BLOCK,
        "single_transformer_blocks": CHROMA_SINGLE_BLOCK,
    },
    refuse_checkpointing=_refuse_checkpointing,
)
