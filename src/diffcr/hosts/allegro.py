"""Allegro, whose rotary tables are looked up by the tokens' places
(diffusers/models/transformers/transformer_allegro.py)."""

from __future__ import annotations

from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.lora_targets import FEED_FORWARD, SELF_AND_CROSS_ATTENTION
from diffcr.hosts.pipelines.allegro import ALLEGRO_CALL

ALLEGRO_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=(
        *("hidden_states", "encoder_hidden_states", "temb"),
        *("attention_mask", "encoder_attention_mask"),
    ),
    token_inputs=(
        TokenInput("image_rotary_emb", keys=(1,)),
        TokenInput("attention_mask", dims=(-1,)),
    ),
    first_linear="attn1.to_q",
    mlp="ff",
)

ALLEGRO = Family(
    name="allegro",
    transformer_class="diffusers.models.transformers.transformer_allegro.AllegroTransformer3DModel",
    block_groups={"transformer_blocks": ALLEGRO_BLOCK},
    lora_targets=SELF_AND_CROSS_ATTENTION + FEED_FORWARD,
    call=ALLEGRO_CALL,
)
