"""PixArt-alpha and PixArt-Sigma.

A token carries its additive position embedding, so a subset of tokens needs nothing else. Blocks
are `BasicTransformerBlock` with `ada_norm_single`; their argument `timestep` is the projected
modulation [B, 6 D], not a timestep (diffusers/models/transformers/pixart_transformer_2d.py).
"""

from __future__ import annotations

from dataclasses import replace

from diffcr.hosts.attention_maps import attend_with_map
from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.lora_targets import FEED_FORWARD
from diffcr.hosts.pipelines.pixart import PIXART_CALL
from diffcr.hosts.prunable import FEED_FORWARD_CHANNELS, attention_heads

PIXART_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=(
        *("hidden_states", "attention_mask", "encoder_hidden_states", "encoder_attention_mask"),
        *("timestep", "class_labels"),
    ),
    attend_with_map=attend_with_map,
    token_inputs=(TokenInput("attention_mask", dims=(-1,)),),
    self_attention="attn1",
    cross_attention="attn2",
    keys_and_values=("to_k", "to_v"),
    mlp="ff",
    prunable=(
        attention_heads("self_attention", "attn1"),
        attention_heads("cross_attention", "attn2", of_text=True),
        FEED_FORWARD_CHANNELS,
    ),
)
SELF_ATTENTION_BLOCK = replace(
    PIXART_BLOCK,
    prunable=tuple(units for units in PIXART_BLOCK.prunable if units.name != "cross_attention"),
)

PIXART = Family(
    name="pixart",
    transformer_class=(
        "diffusers.models.transformers.pixart_transformer_2d.PixArtTransformer2DModel"
    ),
    block_groups={"transformer_blocks": PIXART_BLOCK},
    lora_targets=("to_q", "to_k", "to_v", "to_out.0", *FEED_FORWARD),
    call=PIXART_CALL,
)
