"""CogView 4 and CogView 3 Plus: one feed-forward is called for image and for text
(diffusers/models/transformers/transformer_{cogview4,cogview3plus}.py)."""

from __future__ import annotations

from dataclasses import replace

from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout
from diffcr.hosts.lora_targets import FEED_FORWARD, SELF_ATTENTION
from diffcr.hosts.pipelines.cogview import COGVIEW3_PLUS_CALL, COGVIEW4_CALL
from diffcr.hosts.token_inputs import ROTARY_TABLE

COGVIEW3_PLUS_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "encoder_hidden_states", "emb"),
    outputs=("hidden_states", "encoder_hidden_states"),
    first_linear="attn1.to_q",
)
COGVIEW4_BLOCK = replace(
    COGVIEW3_PLUS_BLOCK,
    batched=("hidden_states", "encoder_hidden_states", "temb", "attention_mask"),
    token_inputs=(ROTARY_TABLE,),
)

COGVIEW3_PLUS = Family(
    name="cogview3-plus",
    transformer_class=(
        "diffusers.models.transformers.transformer_cogview3plus.CogView3PlusTransformer2DModel"
    ),
    block_groups={"transformer_blocks": COGVIEW3_PLUS_BLOCK},
    lora_targets=SELF_ATTENTION + FEED_FORWARD,
    call=COGVIEW3_PLUS_CALL,
)

COGVIEW4 = replace(
    COGVIEW3_PLUS,
    name="cogview4",
    transformer_class=(
        "diffusers.models.transformers.transformer_cogview4.CogView4Transformer2DModel"
    ),
    block_groups={"transformer_blocks": COGVIEW4_BLOCK},
    call=COGVIEW4_CALL,
)
