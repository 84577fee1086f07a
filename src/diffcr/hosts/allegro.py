"""Allegro, whose rotary tables are looked up by the tokens' places
(diffusers/models/transformers/transformer_allegro.py)."""

from __future__ import annotations

from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout, TokenInput

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
    lora_targets=(
        *("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0"),
        *("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"),
        *("ff.net.0.proj", "ff.net.2"),
    ),
)
