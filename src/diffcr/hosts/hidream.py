"""HiDream: experts in the feed-forward; a picture that is not square is padded behind its tokens
(diffusers/models/transformers/transformer_hidream_image.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.prompt import Prompt, encode_with

_TOKEN_INPUTS = (TokenInput("hidden_states_masks"), TokenInput("image_rotary_emb", others="after"))
HIDREAM_SINGLE_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "hidden_states_masks", "temb", "image_rotary_emb"),
    rows="first",
    token_inputs=_TOKEN_INPUTS,
    first_linear="block.attn1.to_q",
    mlp="block.ff_i",
)
HIDREAM_BLOCK = replace(
    HIDREAM_SINGLE_BLOCK,
    batched=(*HIDREAM_SINGLE_BLOCK.batched, "encoder_hidden_states"),
    outputs=("hidden_states", "encoder_hidden_states"),
)


def _refuse(config: Any, arguments: Mapping[str, Any]) -> str | None:
    if arguments.get("hidden_states_masks") is not None:
        return "pictures of several sizes in one call (hidden_states_masks) cannot be routed"
    return None


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    return {
        "hidden_states": latents,
        "timesteps": timesteps,
        "encoder_hidden_states_t5": prompt.embeds,
        "encoder_hidden_states_llama3": prompt.extra["llama3"].transpose(0, 1),
        "pooled_embeds": prompt.pooled,
        "attention_kwargs": None,
        "return_dict": False,
    }


def _encode(pipe: Any, captions: Sequence[str], max_sequence_length: int) -> Prompt:
    """T5's last layer and all of Llama's, [B, L, T, D]."""
    embeds, _, llama3, _, pooled, _ = encode_with(pipe, captions, max_sequence_length)
    return Prompt(embeds, pooled=pooled, extra={"llama3": llama3.transpose(0, 1)})


def _blank_prompt(config: Any, text_tokens: int) -> Prompt:
    t5, llama3 = config.caption_channels
    layers = torch.zeros(1, max(config.llama_layers) + 1, text_tokens, llama3)
    return Prompt(
        torch.zeros(1, text_tokens, t5),
        pooled=torch.zeros(1, config.text_emb_dim),
        extra={"llama3": layers},
    )


def _prediction(transformer: Any, output: Tensor, latents: Tensor) -> Tensor:
    """The pipeline turns the sign. In training the class gives tokens, [B, C, S, p p], and those of
    its padding."""
    if output.shape != latents.shape:
        patch = transformer.config.patch_size
        rows, columns = (side // patch for side in latents.shape[2:])
        squares = output[:, :, : rows * columns].unflatten(3, (patch, patch))
        grid = squares.unflatten(2, (rows, columns))  # [B, C, rows, columns, p, p]
        output = grid.transpose(3, 4).flatten(4).flatten(2, 3)
    return -output


HIDREAM = Family(
    name="hidream",
    transformer_class=(
        "diffusers.models.transformers.transformer_hidream_image.HiDreamImageTransformer2DModel"
    ),
    block_groups={
        "double_stream_blocks": HIDREAM_BLOCK,
        "single_stream_blocks": HIDREAM_SINGLE_BLOCK,
    },
    timestep=NoiseScale("timesteps"),
    call_inputs=_inputs,
    encode_prompt=_encode,
    prediction=_prediction,
    blank_prompt=_blank_prompt,
    conditioning="encoder_hidden_states_t5",
    refuse=_refuse,
    refuse_compile="its experts count their tokens on the host, which breaks a graph",
    lora_targets=("to_q", "to_k", "to_v", "to_out"),
)
