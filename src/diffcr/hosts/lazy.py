"""The two models of `diffcr.inpainting`: the decoder of masked tokens and its context encoder.

Both are made of the blocks of PixArt's family. The decoder's tokens are some of the grid's, and it
says which; the encoder sees a picture once, without a timestep.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.hosts.family import Family, InputSize
from diffcr.hosts.pixart import (
    PIXART,
    PIXART_BLOCK,
    SELF_ATTENTION_BLOCK,
    pixart_blank_prompt,
    pixart_inputs,
)
from diffcr.hosts.prompt import Prompt, of_embeds_and_mask


def _refuse_to_denoise(
    transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt
) -> dict[str, Any]:
    raise DiffCRError(f"{type(transformer).__name__} denoises nothing: pass the transformer")


def _decoder_blank_inputs(transformer: Any, size: InputSize) -> dict[str, Any]:
    """PixArt's, and as many masked tokens as are asked for."""
    arguments = PIXART.inputs_without_content(transformer, size)
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


LAZY_DECODER = Family(
    name="lazy-decoder",
    transformer_class="diffcr.inpainting.decoder.LazyTransformer2DModel",
    block_groups={"transformer_blocks": PIXART_BLOCK},
    lora_targets=PIXART.lora_targets,
    # What is masked, `token_indices` and `context`, the caller adds.
    call_inputs=pixart_inputs,
    encode_prompt=of_embeds_and_mask,
    blank_prompt=pixart_blank_prompt,
    blank_inputs=_decoder_blank_inputs,
    token_positions="token_indices",
)
LAZY_ENCODER = Family(
    name="lazy-encoder",
    transformer_class="diffcr.inpainting.encoder.ContextEncoder",
    block_groups={"transformer_blocks": SELF_ATTENTION_BLOCK},
    timestep=None,
    conditioning=None,
    lora_targets=PIXART.lora_targets,
    call_inputs=_refuse_to_denoise,
    blank_inputs=_encoder_blank_inputs,
)
