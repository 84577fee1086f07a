"""CogVideoX, whose latents have frames before channels
(diffusers/models/transformers/cogvideox_transformer_3d.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffcr.hosts.blank_inputs import video_blank_inputs
from diffcr.hosts.family import Family, Grid, InputSize
from diffcr.hosts.layout import BlockLayout, TokenInput

COGVIDEOX_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "encoder_hidden_states", "temb"),
    outputs=("hidden_states", "encoder_hidden_states"),
    token_inputs=(TokenInput("image_rotary_emb", dims=(0,), shared=True),),
    first_linear="attn1.to_q",
    mlp="ff",
    mlp_others="before",
)


def _grid(transformer: Any, arguments: Mapping[str, Any]) -> Grid:
    _, frames, _, height, width = arguments["hidden_states"].shape
    patch, frame_patch = transformer.config.patch_size, transformer.config.patch_size_t or 1
    return Grid(height // patch, width // patch, frames // frame_patch)


def _blank_inputs(transformer: Any, size: InputSize) -> dict[str, Any]:
    config, arguments = transformer.config, video_blank_inputs(transformer, size)
    latents = arguments["hidden_states"] = arguments["hidden_states"].transpose(1, 2)
    if config.use_rotary_positional_embeddings:
        tokens = _grid(transformer, arguments).tokens
        table = latents.new_zeros(tokens, config.attention_head_dim)
        arguments["image_rotary_emb"] = (table, table)
    if config.ofs_embed_dim:
        arguments["ofs"] = latents.new_zeros(1)
    return arguments


COGVIDEOX = Family(
    name="cogvideox",
    transformer_class=(
        "diffusers.models.transformers.cogvideox_transformer_3d.CogVideoXTransformer3DModel"
    ),
    block_groups={"transformer_blocks": COGVIDEOX_BLOCK},
    blank_inputs=_blank_inputs,
    grid=_grid,
    lora_targets=("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0"),
)
