"""Helios, whose blocks see rows of the past before those of the video
(diffusers/models/transformers/transformer_helios.py)."""

from __future__ import annotations

from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout, TokenInput

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
    lora_targets=(
        *("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0"),
        *("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"),
        *("ffn.net.0.proj", "ffn.net.2"),
    ),
)
