"""Helios, whose blocks see rows of the past before those of the video
(diffusers/models/transformers/transformer_helios.py)."""

from __future__ import annotations

from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.lora_targets import FFN, SELF_AND_CROSS_ATTENTION
from diffcr.hosts.pipelines.helios import HELIOS_CALL

HELIOS_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "encoder_hidden_states", "temb", "rotary_emb"),
    rows="last",
    token_inputs=(TokenInput("rotary_emb"), TokenInput("temb", of_ndim=4)),
    counts=("original_context_length",),
    first_linear="attn1.to_q",
    mlp="ffn",
)

HELIOS = Family(
    name="helios",
    transformer_class="diffusers.models.transformers.transformer_helios.HeliosTransformer3DModel",
    block_groups={"blocks": HELIOS_BLOCK},
    lora_targets=SELF_AND_CROSS_ATTENTION + FFN,
    call=HELIOS_CALL,
)
