"""HunyuanVideo (diffusers/models/transformers/transformer_hunyuan_video.py).

With token replacement the first frame is given and always computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from diffcr.hosts.family import Family
from diffcr.hosts.grid import Grid, latents_grid
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.lora_targets import JOINT_ATTENTION, SIDE_BY_SIDE
from diffcr.hosts.pipelines.hunyuan_video import HUNYUAN_VIDEO_CALL
from diffcr.hosts.token_inputs import MASK_WITH_TEXT_BEHIND, ROTARY_TABLE

_BATCHED = ("hidden_states", "encoder_hidden_states", "temb", "attention_mask")
HUNYUAN_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=(*_BATCHED, "token_replace_emb"),
    optional=("token_replace_emb",),
    rows="last",
    outputs=("hidden_states", "encoder_hidden_states"),
    token_inputs=(MASK_WITH_TEXT_BEHIND, TokenInput("freqs_cis", dims=(0,), shared=True)),
    first_linear="attn.to_q",
    mlp="ff",
)
# Its attention and its feed-forward run side by side over video and text.
HUNYUAN_SINGLE_BLOCK = replace(
    HUNYUAN_BLOCK,
    token_inputs=(MASK_WITH_TEXT_BEHIND, ROTARY_TABLE),
    mlp="act_mlp",
    mlp_others="after",
)


def _grid(transformer: Any, arguments: Mapping[str, Any]) -> Grid:
    grid = latents_grid(transformer, arguments)
    given = int(transformer.config.image_condition_type == "token_replace")
    return replace(grid, frames=grid.frames - given)


HUNYUAN_VIDEO = Family(
    name="hunyuan-video",
    transformer_class=(
        "diffusers.models.transformers.transformer_hunyuan_video.HunyuanVideoTransformer3DModel"
    ),
    block_groups={
        "transformer_blocks": HUNYUAN_BLOCK,
        "single_transformer_blocks": HUNYUAN_SINGLE_BLOCK,
    },
    grid=_grid,
    lora_targets=JOINT_ATTENTION + SIDE_BY_SIDE,
    call=HUNYUAN_VIDEO_CALL,
)
