"""LTX-Video (diffusers/models/transformers/transformer_ltx.py).

With a timestep per token, as for given frames, modulations have a row per token. Given frames that
a pipeline appends as further tokens are routed with the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from diffcr.hosts.family import Family
from diffcr.hosts.grid import Grid
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.lora_targets import SELF_AND_CROSS_ATTENTION
from diffcr.hosts.pipelines.ltx import LTX_CALL

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


LTX = Family(
    name="ltx",
    transformer_class="diffusers.models.transformers.transformer_ltx.LTXVideoTransformer3DModel",
    block_groups={"transformer_blocks": LTX_BLOCK},
    grid=_grid,
    lora_targets=SELF_AND_CROSS_ATTENTION,
    call=LTX_CALL,
)
