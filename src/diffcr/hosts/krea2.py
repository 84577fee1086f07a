"""Krea 2: one sequence of text and image (diffusers/models/transformers/transformer_krea2.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffcr.hosts.family import Family
from diffcr.hosts.grid import Grid, grid_of_places, packed_grid
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.pipelines.krea2 import KREA2_CALL
from diffcr.hosts.token_inputs import ROTARY_TABLE

KREA2_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "temb", "attention_mask"),
    rows="last",
    token_inputs=(ROTARY_TABLE, TokenInput("attention_mask", dims=(-1,))),
    first_linear="attn.to_q",
    mlp="ff",
)


def _read_grid(transformer: Any, arguments: Mapping[str, Any]) -> Grid:
    """The places of text rows are in front."""
    return grid_of_places(arguments["position_ids"][-arguments["hidden_states"].shape[1] :])


KREA2 = Family(
    name="krea2",
    transformer_class="diffusers.models.transformers.transformer_krea2.Krea2Transformer2DModel",
    block_groups={"transformer_blocks": KREA2_BLOCK},
    timestep=NoiseScale(noisy=1),
    grid=packed_grid,
    read_grid=_read_grid,
    lora_targets=(
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_gate", "attn.to_out.0"),
        *("ff.gate", "ff.up", "ff.down"),
    ),
    call=KREA2_CALL,
)
