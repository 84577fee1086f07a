"""Bria: FLUX's blocks (diffusers/models/transformers/transformer_bria.py)."""

from __future__ import annotations

from dataclasses import replace

from diffcr.hosts.flux import FLUX, FLUX_BLOCK
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.pipelines.bria import BRIA_CALL
from diffcr.hosts.token_inputs import JOINT_MASK, JOINT_TABLE

BRIA_BLOCK = replace(
    FLUX_BLOCK,
    batched=("hidden_states", "encoder_hidden_states", "temb", "attention_kwargs"),
    token_inputs=(JOINT_TABLE, replace(JOINT_MASK, argument="attention_kwargs")),
)

BRIA = replace(
    FLUX,
    name="bria",
    transformer_class="diffusers.models.transformers.transformer_bria.BriaTransformer2DModel",
    block_groups={
        "transformer_blocks": BRIA_BLOCK,
        "single_transformer_blocks": replace(BRIA_BLOCK, mlp="act_mlp", mlp_others="before"),
    },
    timestep=NoiseScale(),
    call=BRIA_CALL,
)
