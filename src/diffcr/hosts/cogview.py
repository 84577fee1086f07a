"""CogView 4 and CogView 3 Plus: one feed-forward is called for image and for text
(diffusers/models/transformers/transformer_{cogview4,cogview3plus}.py)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from diffcr.hosts.blank_inputs import spatial_blank_inputs
from diffcr.hosts.family import Family, InputSize
from diffcr.hosts.layout import BlockLayout, TokenInput

COGVIEW3_PLUS_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "encoder_hidden_states", "emb"),
    outputs=("hidden_states", "encoder_hidden_states"),
    first_linear="attn1.to_q",
)
COGVIEW4_BLOCK = replace(
    COGVIEW3_PLUS_BLOCK,
    batched=("hidden_states", "encoder_hidden_states", "temb", "attention_mask"),
    token_inputs=(TokenInput("image_rotary_emb", dims=(0,), shared=True),),
)


def _blank_inputs(transformer: Any, size: InputSize) -> dict[str, Any]:
    arguments = spatial_blank_inputs(transformer, size, text_channels="text_embed_dim")
    sizes = ("original_size", "target_size", "crop_coords")
    return arguments | {name: arguments["timestep"].new_zeros(1, 2) for name in sizes}


COGVIEW3_PLUS = Family(
    name="cogview3-plus",
    transformer_class=(
        "diffusers.models.transformers.transformer_cogview3plus.CogView3PlusTransformer2DModel"
    ),
    block_groups={"transformer_blocks": COGVIEW3_PLUS_BLOCK},
    blank_inputs=_blank_inputs,
    lora_targets=(
        *("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0"),
        *("ff.net.0.proj", "ff.net.2"),
    ),
)
COGVIEW4 = replace(
    COGVIEW3_PLUS,
    name="cogview4",
    transformer_class=(
        "diffusers.models.transformers.transformer_cogview4.CogView4Transformer2DModel"
    ),
    block_groups={"transformer_blocks": COGVIEW4_BLOCK},
)
