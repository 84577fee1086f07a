"""SkyReels V2 (diffusers/models/transformers/transformer_skyreels_v2.py).

With diffusion forcing every frame has its own timestep, and modulations have a column per token; a
causal model's mask holds for all samples.
"""

from __future__ import annotations

from dataclasses import replace

from diffcr.hosts.layout import TokenInput
from diffcr.hosts.wan import WAN, WAN_BLOCK

SKYREELS_BLOCK = replace(
    WAN_BLOCK,
    batched=(*WAN_BLOCK.batched, "attention_mask"),
    token_inputs=(
        TokenInput("rotary_emb"),
        TokenInput("temb", dims=(2,), of_ndim=4),
        TokenInput("attention_mask", dims=(-2, -1)),
    ),
)

SKYREELS = replace(
    WAN,
    name="skyreels-v2",
    transformer_class=(
        "diffusers.models.transformers.transformer_skyreels_v2.SkyReelsV2Transformer3DModel"
    ),
    block_groups={"blocks": SKYREELS_BLOCK},
)
