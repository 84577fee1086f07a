"""Bria Fibo: FLUX's double blocks and Chroma's single ones; text is half replaced between blocks
(diffusers/models/transformers/transformer_bria_fibo.py)."""

from __future__ import annotations

from dataclasses import replace

from diffcr.hosts.chroma import CHROMA_SINGLE_BLOCK
from diffcr.hosts.flux import FLUX, FLUX_BLOCK
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.pipelines.bria_fibo import BRIA_FIBO_CALL
from diffcr.hosts.token_inputs import JOINT_MASK, JOINT_TABLE

BRIA_FIBO = replace(
    FLUX,
    name="bria-fibo",
    transformer_class=(
        "diffusers.models.transformers.transformer_bria_fibo.BriaFiboTransformer2DModel"
    ),
    block_groups={
        "transformer_blocks": FLUX_BLOCK,
        "single_transformer_blocks": replace(
            CHROMA_SINGLE_BLOCK,
            batched=("hidden_states", "temb", "joint_attention_kwargs"),
            token_inputs=(JOINT_TABLE, JOINT_MASK),
        ),
    },
    timestep=NoiseScale(),
    call=BRIA_FIBO_CALL,
)
