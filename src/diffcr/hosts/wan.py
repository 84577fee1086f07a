"""Wan 2.1 and 2.2, text and image to video (diffusers/models/transformers/transformer_wan.py).

With a timestep per token (TI2V) the modulation has a row per token.
"""

from __future__ import annotations

from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.lora_targets import FFN, SELF_AND_CROSS_ATTENTION
from diffcr.hosts.pipelines.wan import WAN_CALL

WAN_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "encoder_hidden_states", "temb", "rotary_emb"),
    token_inputs=(TokenInput("rotary_emb"), TokenInput("temb", of_ndim=4)),
    first_linear="attn1.to_q",
    mlp="ffn",
)

WAN = Family(
    name="wan",
    transformer_class="diffusers.models.transformers.transformer_wan.WanTransformer3DModel",
    block_groups={"blocks": WAN_BLOCK},
    lora_targets=SELF_AND_CROSS_ATTENTION + FFN,
    call=WAN_CALL,
)
