"""HunyuanVideo 1.5 (diffusers/models/transformers/transformer_hunyuan_video15.py)."""

from __future__ import annotations

from dataclasses import replace

from diffcr.hosts.grid import latents_grid
from diffcr.hosts.hunyuan_video import HUNYUAN_BLOCK, HUNYUAN_VIDEO
from diffcr.hosts.layout import TokenInput
from diffcr.hosts.pipelines.hunyuan_video15 import HUNYUAN_VIDEO15_CALL

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
    name="hunyuan-video-1.5",
    transformer_class=(
        "diffusers.models.transformers.transformer_hunyuan_video15.HunyuanVideo15Transformer3DModel"
    ),
    block_groups={"transformer_blocks": HUNYUAN15_BLOCK},
    grid=latents_grid,
    call=HUNYUAN_VIDEO15_CALL,
)
