"""Bria Fibo: FLUX's double blocks and Chroma's single ones; text is half replaced between blocks
(diffusers/models/transformers/transformer_bria_fibo.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.calls import latents_as_tokens, text_inputs, tokens_as_latents
from diffcr.hosts.chroma import CHROMA_SINGLE_BLOCK
from diffcr.hosts.family import config_patch
from diffcr.hosts.flux import FLUX, FLUX_BLOCK, JOINT_MASK, JOINT_TABLE
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.places import image_places
from diffcr.hosts.prompt import Prompt, encode_with, of_rows


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    """A latent is a token. Every block is told a layer of the text encoder: of the last ones, and
    where there are fewer than blocks, the last one again."""
    config, layers = transformer.config, list(prompt.embeds.unbind(2))
    blocks = config.num_layers + config.num_single_layers
    tokens = latents_as_tokens(latents)
    return {
        **text_inputs(transformer, tokens, timesteps, prompt),
        "encoder_hidden_states": torch.cat([layers[-1], layers[-2]], dim=-1),
        "text_encoder_layers": layers[-blocks:] + [layers[-1]] * (blocks - len(layers)),
        "txt_ids": latents.new_zeros(prompt.embeds.shape[1], 3),
        "img_ids": image_places(latents, packed=1),
        "joint_attention_kwargs": _mask(tokens, prompt.mask),
    }


def _mask(tokens: Tensor, text: Tensor | None) -> dict[str, Tensor]:
    """Nothing where all is seen, so that attention without masks can be used."""
    if text is None or bool(text.all()):
        return {}
    seen = torch.cat([text.bool(), text.new_ones(tokens.shape[:2], dtype=torch.bool)], dim=1)
    return {"attention_mask": seen[:, None, None]}


def _encode(pipe: Any, captions: Sequence[str], max_sequence_length: int) -> Prompt:
    """All layers of the text encoder. One by one: the pipeline fills an empty prompt beside others
    with tokens that are seen."""
    prompts = []
    for caption in captions:
        found = encode_with(pipe, [caption], max_sequence_length, guidance_scale=1)
        prompts.append(torch.stack(found[5], dim=2)[0])
    return of_rows(prompts)


def _blank_prompt(config: Any, text_tokens: int) -> Prompt:
    layers = config.num_layers + config.num_single_layers
    return Prompt(torch.zeros(1, text_tokens, layers, config.text_encoder_dim))


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
    call_inputs=_inputs,
    encode_prompt=_encode,
    blank_prompt=_blank_prompt,
    prediction=tokens_as_latents,
    latent_channels=lambda config: int(config.in_channels),
    patch=config_patch,
)
