"""Stable Diffusion 3 and 3.5 (diffusers/models/transformers/transformer_sd3.py).

Positions are added to the tokens; the last block returns None for the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout
from diffcr.hosts.prompt import Prompt, encode_with

SD3_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "encoder_hidden_states", "temb"),
    outputs=("encoder_hidden_states", "hidden_states"),
    first_linear="attn.to_q",
    mlp="ff",
)


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    return {
        "hidden_states": latents,
        "timestep": timesteps,
        "encoder_hidden_states": prompt.embeds,
        "pooled_projections": prompt.pooled,
        "joint_attention_kwargs": None,
        "return_dict": False,
    }


def _encode(pipe: Any, captions: Sequence[str], max_sequence_length: int) -> Prompt:
    embeds, _, pooled, _ = encode_with(pipe, captions, max_sequence_length)
    return Prompt(embeds, pooled=pooled)


def _blank_prompt(config: Any, text_tokens: int) -> Prompt:
    embeds = torch.zeros(1, text_tokens, config.joint_attention_dim)
    return Prompt(embeds, pooled=torch.zeros(1, config.pooled_projection_dim))


SD3 = Family(
    name="sd3",
    transformer_class="diffusers.models.transformers.transformer_sd3.SD3Transformer2DModel",
    block_groups={"transformer_blocks": SD3_BLOCK},
    call_inputs=_inputs,
    encode_prompt=_encode,
    blank_prompt=_blank_prompt,
    lora_targets=(
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
    ),
)
