"""Stable Diffusion 3 and 3.5 (diffusers/models/transformers/transformer_sd3.py).

Positions are added to the tokens; the last block returns None for the text.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from diffcr.hosts.calls import text_inputs
from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout
from diffcr.hosts.lora_targets import JOINT_ATTENTION
from diffcr.hosts.prompt import Prompt, blank_text, of_tensors

SD3_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "encoder_hidden_states", "temb"),
    outputs=("encoder_hidden_states", "hidden_states"),
    first_linear="attn.to_q",
    mlp="ff",
)


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    return {
        **text_inputs(transformer, latents, timesteps, prompt),
        "pooled_projections": prompt.pooled,
    }


SD3 = Family(
    name="sd3",
    transformer_class="diffusers.models.transformers.transformer_sd3.SD3Transformer2DModel",
    block_groups={"transformer_blocks": SD3_BLOCK},
    call_inputs=_inputs,
    encode_prompt=partial(of_tensors, names=("embeds", "", "pooled")),
    blank_prompt=partial(
        blank_text, channels="joint_attention_dim", pooled="pooled_projection_dim"
    ),
    lora_targets=JOINT_ATTENTION,
)
