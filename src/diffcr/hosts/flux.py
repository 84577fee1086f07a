"""FLUX.1: also Kontext, Fill, Control, whose references are routed with the rest
(diffusers/models/transformers/transformer_flux.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.calls import given_beside, pack_latents, unpack_latents
from diffcr.hosts.family import Family, packed_patch
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.packed import grid_of_image_ids, packed_grid
from diffcr.hosts.places import image_places
from diffcr.hosts.prompt import Prompt, encode_with

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
        "hidden_states": pack_latents(latents),
        "timestep": timesteps,
        "guidance": guidance if transformer.config.guidance_embeds else None,
        "pooled_projections": prompt.pooled,
        "encoder_hidden_states": prompt.embeds,
        "txt_ids": latents.new_zeros(prompt.embeds.shape[1], 3),
        "img_ids": image_places(latents),
        "joint_attention_kwargs": {},
        "return_dict": False,
    }


def _encode(pipe: Any, captions: Sequence[str], max_sequence_length: int) -> Prompt:
    embeds, pooled, _ = encode_with(pipe, captions, max_sequence_length)
    return Prompt(embeds, pooled=pooled)


def _blank_prompt(config: Any, text_tokens: int) -> Prompt:
    embeds = torch.zeros(1, text_tokens, config.joint_attention_dim)
    return Prompt(embeds, pooled=torch.zeros(1, config.pooled_projection_dim))


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
    encode_prompt=_encode,
    prediction=unpack_latents,
    blank_prompt=_blank_prompt,
    refuse_training=given_beside,
    latent_channels=lambda config: int(config.in_channels) // 4,
    patch=packed_patch,
    lora_targets=(
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
        *("proj_mlp", "proj_out"),
    ),
)
