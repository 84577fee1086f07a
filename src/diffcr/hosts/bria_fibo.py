"""Bria Fibo: FLUX's double blocks and Chroma's single ones; text is half replaced between blocks
(diffusers/models/transformers/transformer_bria_fibo.py)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from diffcr.hosts.blank_inputs import packed_blank_inputs
from diffcr.hosts.calls import UNTRAINED
from diffcr.hosts.chroma import CHROMA_SINGLE_BLOCK
from diffcr.hosts.family import InputSize
from diffcr.hosts.flux import FLUX, FLUX_BLOCK, JOINT_MASK, JOINT_TABLE
from diffcr.hosts.noise_scale import NoiseScale


def _blank_inputs(transformer: Any, size: InputSize) -> dict[str, Any]:
    """A latent is a token."""
    config = transformer.config
    arguments = packed_blank_inputs(transformer, size, packed=1)
    text = arguments["timestep"].new_zeros(1, size.text_tokens, config.text_encoder_dim)
    return {
        **arguments,
        "text_encoder_layers": [text] * (config.num_layers + config.num_single_layers),
    }


BRIA_FIBO = replace(
    FLUX,
    **UNTRAINED,
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
    blank_inputs=_blank_inputs,
)
