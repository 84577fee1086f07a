"""Ovis-Image, LongCat-Image and Bria: FLUX's blocks
(diffusers/models/transformers/transformer_{ovis_image,longcat_image,bria}.py)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from diffcr.hosts.calls import pack_latents, text_inputs
from diffcr.hosts.flux import FLUX, FLUX_BLOCK, JOINT_MASK, JOINT_TABLE
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.places import diagonal_places, image_places, places
from diffcr.hosts.prompt import Prompt, blank_text, of_embeds

# LongCat's pictures begin behind its longest prompt: kind of token, row, column.
_LONGCAT_START = (1, 512, 512)


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    return {
        **text_inputs(transformer, pack_latents(latents), timesteps, prompt),
        "img_ids": image_places(latents),
    }


def _ovis_inputs(
    transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt
) -> dict[str, Any]:
    return {
        **_inputs(transformer, latents, timesteps, prompt),
        "txt_ids": diagonal_places(prompt.embeds).to(prompt.embeds.dtype),
        "joint_attention_kwargs": {},
    }


def _longcat_inputs(
    transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt
) -> dict[str, Any]:
    """Places are in float32: bfloat16 has no odd numbers above 256."""
    rows, columns = (side // 2 for side in latents.shape[2:])
    image = places(latents.device, 1, rows, columns).float()
    return {
        **_inputs(transformer, latents, timesteps, prompt),
        "txt_ids": diagonal_places(prompt.embeds),
        "img_ids": image + image.new_tensor(_LONGCAT_START),
    }


def _bria_inputs(
    transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt
) -> dict[str, Any]:
    return {
        **_inputs(transformer, latents, timesteps, prompt),
        "txt_ids": latents.new_zeros(prompt.embeds.shape[1], 3),
    }


_CLONE = replace(
    FLUX, encode_prompt=of_embeds, blank_prompt=partial(blank_text, channels="joint_attention_dim")
)
LONGCAT_IMAGE = replace(
    _CLONE,
    name="longcat-image",
    transformer_class=(
        "diffusers.models.transformers.transformer_longcat_image.LongCatImageTransformer2DModel"
    ),
    call_inputs=_longcat_inputs,
)
OVIS_IMAGE = replace(
    _CLONE,
    name="ovis-image",
    transformer_class=(
        "diffusers.models.transformers.transformer_ovis_image.OvisImageTransformer2DModel"
    ),
    call_inputs=_ovis_inputs,
)
_BRIA_BLOCK = replace(
    FLUX_BLOCK,
    batched=("hidden_states", "encoder_hidden_states", "temb", "attention_kwargs"),
    token_inputs=(JOINT_TABLE, replace(JOINT_MASK, argument="attention_kwargs")),
)
BRIA = replace(
    _CLONE,
    name="bria",
    transformer_class="diffusers.models.transformers.transformer_bria.BriaTransformer2DModel",
    block_groups={
        "transformer_blocks": _BRIA_BLOCK,
        "single_transformer_blocks": replace(_BRIA_BLOCK, mlp="act_mlp", mlp_others="before"),
    },
    timestep=NoiseScale(),
    call_inputs=_bria_inputs,
    latents_of_scale=2,
)
