"""HunyuanVideo 1.5 (diffusers/models/transformers/transformer_hunyuan_video15.py)."""

from __future__ import annotations

from dataclasses import replace

from diffcr.hosts.calls import UNTRAINED
from diffcr.hosts.family import Family, latents_grid
from diffcr.hosts.hunyuan_video import HUNYUAN_BLOCK, HUNYUAN_VIDEO
from diffcr.hosts.layout import TokenInput

# The mask is that of the text alone.
HUNYUAN15_BLOCK = replace(
    HUNYUAN_BLOCK,
    batched=("hidden_states", "encoder_hidden_states", "temb", "attention_mask"),
    optional=(),
    rows="all",
    token_inputs=(TokenInput("freqs_cis", dims=(0,), shared=True),),
)
HUNYUAN_VIDEO15 = replace(
    HUNYUAN_VIDEO,
    **UNTRAINED,
    name="hunyuan-video-1.5",
    transformer_class=(
        "diffusers.models.transformers.transformer_hunyuan_video15.HunyuanVideo15Transformer3DModel"
    ),
    block_groups={"transformer_blocks": HUNYUAN15_BLOCK},
    blank_inputs=Family.blank_inputs,
    grid=latents_grid,
)
