"""How Bria Fibo is called (diffusers/pipelines/bria_fibo/pipeline_bria_fibo.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.pipelines.call import PipelineCall
from diffcr.hosts.pipelines.given_frames import given_beside
from diffcr.hosts.pipelines.packed import latents_as_tokens, tokens_as_latents
from diffcr.hosts.pipelines.places import image_places
from diffcr.hosts.pipelines.prompt import Prompt, encode_with, of_rows
from diffcr.hosts.pipelines.text_inputs import text_inputs


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


BRIA_FIBO_CALL = PipelineCall(
    inputs=_inputs,
    encode_prompt=_encode,
    blank_prompt=_blank_prompt,
    prediction=tokens_as_latents,
    refuse_training=given_beside,
)
