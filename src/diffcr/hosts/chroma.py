"""Chroma: FLUX's double blocks, single blocks over one sequence of text and image, and a mask
(diffusers/models/transformers/transformer_chroma.py).

`temb` holds modulations, not tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from diffcr.hosts.flux import FLUX, FLUX_BLOCK
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.pipelines.chroma import CHROMA_CALL
from diffcr.hosts.token_inputs import JOINT_TABLE

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


CHROMA = replace(
    FLUX,
    name="chroma",
    transformer_class="diffusers.models.transformers.transformer_chroma.ChromaTransformer2DModel",
    block_groups={
        "transformer_blocks": CHROMA_BLOCK,
        "single_transformer_blocks": CHROMA_SINGLE_BLOCK,
    },
    refuse_checkpointing=_refuse_checkpointing,
    call=CHROMA_CALL,
)
