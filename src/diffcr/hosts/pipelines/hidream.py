"""How HiDream is called (diffusers/pipelines/hidream_image/pipeline_hidream_image.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.pipelines.call import PipelineCall
from diffcr.hosts.pipelines.prompt import Prompt, encode_with


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


HIDREAM_CALL = PipelineCall(
    inputs=_inputs,
    encode_prompt=_encode,
    prediction=_prediction,
    blank_prompt=_blank_prompt,
)
