"""Ovis-Image, LongCat-Image and Bria: FLUX's blocks
(diffusers/models/transformers/transformer_{ovis_image,longcat_image,bria}.py)."""

from __future__ import annotations

from dataclasses import replace

from diffcr.hosts.blank_inputs import packed_blank_inputs
from diffcr.hosts.calls import UNTRAINED
from diffcr.hosts.flux import FLUX, FLUX_BLOCK, JOINT_MASK, JOINT_TABLE
from diffcr.hosts.noise_scale import NoiseScale

LONGCAT_IMAGE = replace(
    FLUX,
    **UNTRAINED,
    name="longcat-image",
    transformer_class=(
        "diffusers.models.transformers.transformer_longcat_image.LongCatImageTransformer2DModel"
    ),
    blank_inputs=packed_blank_inputs,
)
OVIS_IMAGE = replace(
    FLUX,
    **UNTRAINED,
    name="ovis-image",
    transformer_class=(
        "diffusers.models.transformers.transformer_ovis_image.OvisImageTransformer2DModel"
    ),
    blank_inputs=packed_blank_inputs,
)
_BRIA_BLOCK = replace(
    FLUX_BLOCK,
    batched=("hidden_states", "encoder_hidden_states", "temb", "attention_kwargs"),
    token_inputs=(JOINT_TABLE, replace(JOINT_MASK, argument="attention_kwargs")),
)
BRIA = replace(
    FLUX,
    **UNTRAINED,
    name="bria",
    transformer_class="diffusers.models.transformers.transformer_bria.BriaTransformer2DModel",
    block_groups={
        "transformer_blocks": _BRIA_BLOCK,
        "single_transformer_blocks": replace(_BRIA_BLOCK, mlp="act_mlp", mlp_others="before"),
    },
    timestep=NoiseScale(),
    blank_inputs=packed_blank_inputs,
)
