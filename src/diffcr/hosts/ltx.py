"""LTX-Video (diffusers/models/transformers/transformer_ltx.py).

With a timestep per token, as for given frames, modulations have a row per token. Given frames that
a pipeline appends as further tokens are routed with the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from diffcr.hosts.blank_inputs import video_blank_inputs
from diffcr.hosts.family import Family, Grid, InputSize
from diffcr.hosts.layout import BlockLayout, TokenInput

LTX_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=(
        *("hidden_states", "encoder_hidden_states", "encoder_attention_mask"),
        *("temb", "image_rotary_emb"),
    ),
    token_inputs=(TokenInput("image_rotary_emb"), TokenInput("temb")),
    first_linear="attn1.to_q",
    mlp="ff",
)


def _grid(transformer: Any, arguments: Mapping[str, Any]) -> Grid:
    """From the sizes that a call names; with appended frames a place follows from nothing."""
    sides = [arguments.get(side) or 0 for side in ("height", "width", "num_frames")]
    tokens: int = arguments["hidden_states"].shape[1]
    return Grid(*sides) if prod(sides) == tokens else Grid(0, 0, beside=tokens)


def _blank_inputs(transformer: Any, size: InputSize) -> dict[str, Any]:
    """A latent is a token."""
    arguments = video_blank_inputs(transformer, size, "caption_channels")
    latents, (rows, columns) = arguments["hidden_states"], size.latents(transformer.config)
    arguments["hidden_states"] = latents.flatten(2).transpose(1, 2)
    mask = latents.new_ones(1, size.text_tokens)
    sides = {"num_frames": size.frames, "height": rows, "width": columns}
    return {**arguments, "encoder_attention_mask": mask, **sides}


LTX = Family(
    name="ltx",
    transformer_class="diffusers.models.transformers.transformer_ltx.LTXVideoTransformer3DModel",
    block_groups={"transformer_blocks": LTX_BLOCK},
    blank_inputs=_blank_inputs,
    grid=_grid,
    lora_targets=(
        *("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0"),
        *("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"),
    ),
)
