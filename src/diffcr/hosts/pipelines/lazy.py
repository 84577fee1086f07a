"""How the two models of `diffcr.inpainting` are called."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.hosts.input_size import InputSize
from diffcr.hosts.pipelines.call import PipelineCall
from diffcr.hosts.pipelines.pixart import PIXART_CALL
from diffcr.hosts.pipelines.prompt import Prompt


def _refuse_to_denoise(
    transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt
) -> dict[str, Any]:
    raise DiffCRError(f"{type(transformer).__name__} denoises nothing: pass the transformer")


def _decoder_blank_inputs(transformer: Any, size: InputSize) -> dict[str, Any]:
    """PixArt's, and as many masked tokens as are asked for."""
    arguments = PIXART_CALL.inputs_without_content(transformer, size)
    config, latents = transformer.config, arguments["hidden_states"]
    rows, columns = (side // config.patch_size for side in size.latents(config))
    masked = rows * columns if size.masked_tokens is None else size.masked_tokens
    indices = latents.new_zeros(1, masked, dtype=torch.int64)
    context = latents.new_zeros(1, masked, config.context_channels)
    return {**arguments, "token_indices": indices, "context": context}


def _encoder_blank_inputs(transformer: Any, size: InputSize) -> dict[str, Any]:
    """A picture and its mask; there is no text."""
    config, weights = transformer.config, next(transformer.parameters())
    rows, columns = size.latents(config)
    return {
        "hidden_states": weights.new_zeros(1, config.in_channels, rows, columns),
        "mask": weights.new_zeros(1, 1, rows, columns),
    }


# What is masked, `token_indices` and `context`, the caller of a forward adds.
LAZY_DECODER_CALL = replace(PIXART_CALL, blank_inputs=_decoder_blank_inputs)

LAZY_ENCODER_CALL = PipelineCall(
    inputs=_refuse_to_denoise,
    blank_inputs=_encoder_blank_inputs,
)
