"""FLUX.1: also Kontext, Fill, Control, whose references are routed with the rest
(diffusers/models/transformers/transformer_flux.py)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.calls import given_beside, pack_latents, text_inputs
from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.lora_targets import JOINT_ATTENTION
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.packed import PACKED, grid_of_image_ids, packed_grid
from diffcr.hosts.places import image_places
from diffcr.hosts.prompt import Prompt, blank_text, of_tensors

# Of a guidance-distilled model in training: the pipeline's default, as in diffusers'
# examples/dreambooth/train_dreambooth_lora_flux.py.
DISTILLED_GUIDANCE = 3.5

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


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    """Places of the image are rows and columns of tokens; the text's are all 0."""
    guidance = timesteps.new_full((len(latents),), DISTILLED_GUIDANCE, dtype=torch.float32)
    return {
        **text_inputs(transformer, pack_latents(latents), timesteps, prompt),
        "guidance": guidance if transformer.config.guidance_embeds else None,
        "pooled_projections": prompt.pooled,
        "txt_ids": latents.new_zeros(prompt.embeds.shape[1], 3),
        "img_ids": image_places(latents),
        "joint_attention_kwargs": {},
    }


FLUX = Family(
    name="flux",
    transformer_class="diffusers.models.transformers.transformer_flux.FluxTransformer2DModel",
    block_groups={
        "transformer_blocks": FLUX_BLOCK,
        "single_transformer_blocks": FLUX_SINGLE_BLOCK,
    },
    timestep=NoiseScale(noisy=1),
    grid=packed_grid,
    read_grid=grid_of_image_ids,
    call_inputs=_inputs,
    encode_prompt=partial(of_tensors, names=("embeds", "pooled")),
    blank_prompt=partial(
        blank_text, channels="joint_attention_dim", pooled="pooled_projection_dim"
    ),
    refuse_training=given_beside,
    **PACKED,
    lora_targets=(
        *JOINT_ATTENTION,
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
        *("proj_mlp", "proj_out"),
    ),
)
