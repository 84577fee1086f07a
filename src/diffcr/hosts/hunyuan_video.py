"""HunyuanVideo (diffusers/models/transformers/transformer_hunyuan_video.py).

With token replacement the first frame is given and always computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from diffcr.hosts.blank_inputs import video_blank_inputs
from diffcr.hosts.family import Family, Grid, InputSize, latents_grid
from diffcr.hosts.layout import BlockLayout, TokenInput

_BATCHED = ("hidden_states", "encoder_hidden_states", "temb", "attention_mask")
_MASK = TokenInput("attention_mask", dims=(-1,), others="after")
HUNYUAN_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=(*_BATCHED, "token_replace_emb"),
    optional=("token_replace_emb",),
    rows="last",
    outputs=("hidden_states", "encoder_hidden_states"),
    token_inputs=(_MASK, TokenInput("freqs_cis", dims=(0,), shared=True)),
    first_linear="attn.to_q",
    mlp="ff",
)
# Its attention and its feed-forward run side by side over video and text.
HUNYUAN_SINGLE_BLOCK = replace(
    HUNYUAN_BLOCK,
    token_inputs=(_MASK, TokenInput("image_rotary_emb", dims=(0,), shared=True)),
    mlp="act_mlp",
    mlp_others="after",
)


def _grid(transformer: Any, arguments: Mapping[str, Any]) -> Grid:
    grid = latents_grid(transformer, arguments)
    given = int(transformer.config.image_condition_type == "token_replace")
    return replace(grid, frames=grid.frames - given)


def _blank_inputs(transformer: Any, size: InputSize) -> dict[str, Any]:
    config, arguments = transformer.config, video_blank_inputs(transformer, size)
    latents = arguments["hidden_states"]
    return {
        **arguments,
        "encoder_attention_mask": latents.new_ones(1, size.text_tokens, dtype=torch.int64),
        "pooled_projections": latents.new_zeros(1, config.pooled_projection_dim),
        "guidance": latents.new_zeros(1) if config.guidance_embeds else None,
    }


_JOINT_ATTENTION = (
    *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
    *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
)
HUNYUAN_VIDEO = Family(
    name="hunyuan-video",
    transformer_class=(
        "diffusers.models.transformers.transformer_hunyuan_video.HunyuanVideoTransformer3DModel"
    ),
    block_groups={
        "transformer_blocks": HUNYUAN_BLOCK,
        "single_transformer_blocks": HUNYUAN_SINGLE_BLOCK,
    },
    blank_inputs=_blank_inputs,
    grid=_grid,
    lora_targets=(*_JOINT_ATTENTION, "proj_mlp", "proj_out"),
)
