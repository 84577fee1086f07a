"""FLUX.1: also Kontext, Fill, Control, whose references are routed with the rest
(diffusers/models/transformers/transformer_flux.py)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from diffcr.hosts.blank_inputs import packed_blank_inputs
from diffcr.hosts.family import Family, InputSize, NoiseScale
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.packed import grid_of_image_ids, packed_grid

JOINT_TABLE = TokenInput("image_rotary_emb", dims=(0,), others="before", shared=True)
JOINT_MASK = TokenInput(
    "joint_attention_kwargs", keys=("attention_mask",), dims=(-2, -1), others="before"
)
FLUX_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "encoder_hidden_states", "temb", "joint_attention_kwargs"),
    outputs=("encoder_hidden_states", "hidden_states"),
    token_inputs=(JOINT_TABLE, JOINT_MASK),
    first_linear="attn.to_q",
    mlp="ff",
)
# Its attention and its feed-forward run side by side over text and image.
FLUX_SINGLE_BLOCK = replace(FLUX_BLOCK, mlp="act_mlp", mlp_others="before")


def _blank_inputs(transformer: Any, size: InputSize) -> dict[str, Any]:
    arguments = packed_blank_inputs(transformer, size)
    pooled = transformer.config.pooled_projection_dim
    return {**arguments, "pooled_projections": arguments["timestep"].new_zeros(1, pooled)}


FLUX = Family(
    name="flux",
    transformer_class="diffusers.models.transformers.transformer_flux.FluxTransformer2DModel",
    block_groups={
        "transformer_blocks": FLUX_BLOCK,
        "single_transformer_blocks": FLUX_SINGLE_BLOCK,
    },
    timestep=NoiseScale(noisy=1),
    blank_inputs=_blank_inputs,
    grid=packed_grid,
    read_grid=grid_of_image_ids,
    lora_targets=(
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
        *("proj_mlp", "proj_out"),
    ),
)
