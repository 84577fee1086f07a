"""Kandinsky 5, whose latents have channels last
(diffusers/models/transformers/transformer_kandinsky.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from diffcr.hosts.family import Family, Grid, InputSize
from diffcr.hosts.layout import BlockLayout, TokenInput

KANDINSKY5_BLOCK = BlockLayout(
    hidden_states="visual_embed",
    batched=("visual_embed", "text_embed", "time_embed", "rope"),
    token_inputs=(TokenInput("rope"),),
    refuses={"sparse_params": "sparse attention over squares of tokens"},
    first_linear="self_attention.to_query",
    mlp="feed_forward",
)


def _grid(transformer: Any, arguments: Mapping[str, Any]) -> Grid:
    _, frames, height, width, _ = arguments["hidden_states"].shape
    patch = transformer.config.patch_size
    return Grid(height // patch[1], width // patch[2], frames // patch[0])


def _blank_inputs(transformer: Any, size: InputSize) -> dict[str, Any]:
    config, weights = transformer.config, next(transformer.parameters())
    channels = config.in_visual_dim * (2 if config.visual_cond else 1) + config.visual_cond
    latents = weights.new_zeros(1, size.frames, *size.latents(config), channels)
    grid = _grid(transformer, {"hidden_states": latents})
    sides = (grid.frames, grid.rows, grid.columns)
    return {
        "hidden_states": latents,
        "encoder_hidden_states": weights.new_zeros(1, size.text_tokens, config.in_text_dim),
        "pooled_projections": weights.new_zeros(1, config.in_text_dim2),
        "timestep": weights.new_zeros(1),
        "visual_rope_pos": [torch.arange(side, device=weights.device) for side in sides],
        "text_rope_pos": torch.arange(size.text_tokens, device=weights.device),
        "return_dict": False,
    }


_ATTENTION = ("to_query", "to_key", "to_value", "out_layer")
KANDINSKY5 = Family(
    name="kandinsky5",
    transformer_class=(
        "diffusers.models.transformers.transformer_kandinsky.Kandinsky5Transformer3DModel"
    ),
    block_groups={"visual_transformer_blocks": KANDINSKY5_BLOCK},
    blank_inputs=_blank_inputs,
    grid=_grid,
    width=lambda config: int(config.model_dim),
    lora_targets=(
        *(f"self_attention.{layer}" for layer in _ATTENTION),
        *(f"cross_attention.{layer}" for layer in _ATTENTION),
        *("feed_forward.in_layer", "feed_forward.out_layer"),
    ),
)
