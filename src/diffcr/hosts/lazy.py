"""The two models of `diffcr.inpainting`: the decoder of masked tokens and its context encoder.

Both are made of the blocks of PixArt's family. The decoder's tokens are some of the grid's, and it
says which; the encoder sees a picture once, without a timestep.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from diffcr.cost.flops import BlockShape, Flops, TransformerShape, pixart_shape
from diffcr.errors import DiffCRError
from diffcr.hosts.family import Family
from diffcr.hosts.pixart import PIXART, PIXART_BLOCK, pixart_inputs


def _refuse_to_denoise(
    transformer: Any,
    latents: Tensor,
    timesteps: Tensor,
    prompt_embeds: Tensor,
    prompt_mask: Tensor | None,
) -> dict[str, Any]:
    raise DiffCRError(f"{type(transformer).__name__} denoises nothing: pass the transformer")


def decoder_shape(
    config: Mapping[str, Any], text_tokens: int, masked_tokens: int | None = None
) -> TransformerShape:
    """Sizes of a decoder.

    Args:
        config: The decoder's `config`.
        text_tokens: Tokens of a prompt, padding included.
        masked_tokens: Of one picture; all by default.
    """
    side = config["patch_size"]
    everything = (config["sample_size"] // side) ** 2
    masked_tokens = everything if masked_tokens is None else masked_tokens
    # A picture one token high holds the masked ones.
    shape = pixart_shape(config, text_tokens, side, side * masked_tokens)
    width = shape.block.width
    others = everything - masked_tokens
    multiply_adds = masked_tokens * (width + config["context_channels"]) * width
    multiply_adds += others * width * config["in_channels"] * side**2
    joining = Flops(2 * multiply_adds, 2 * multiply_adds)
    return replace(shape, outside_blocks=shape.outside_blocks + joining)


def encoder_shape(config: Mapping[str, Any], text_tokens: int = 0) -> TransformerShape:
    """Sizes of a context encoder, which sees every token of a picture once, and no text.

    Args:
        config: The encoder's `config`.
        text_tokens: Of no account.
    """
    side = config["patch_size"]
    tokens = (config["sample_size"] // side) ** 2
    heads = config["num_attention_heads"]
    width = heads * config["attention_head_dim"]
    multiply_adds = tokens * width * (config["in_channels"] + 1) * side**2
    embedding = Flops(2 * multiply_adds, 2 * multiply_adds)
    block = BlockShape(width, text_width=0, mlp_width=4 * width, heads=heads)
    return TransformerShape(block, config["num_layers"], tokens, 0, embedding)


_ENCODER_BLOCK = replace(
    PIXART_BLOCK,
    prunable=tuple(units for units in PIXART_BLOCK.prunable if units.name != "cross_attention"),
)
LAZY_DECODER = Family(
    name="lazy-decoder",
    transformer_class="diffcr.inpainting.decoder.LazyTransformer2DModel",
    block_groups={"transformer_blocks": PIXART_BLOCK},
    timestep="timestep",
    latents="hidden_states",
    conditioning="encoder_hidden_states",
    lora_targets=PIXART.lora_targets,
    # What is masked, `token_indices` and `context`, the caller adds.
    call_inputs=pixart_inputs,
    shape=decoder_shape,
    token_positions="token_indices",
)
LAZY_ENCODER = Family(
    name="lazy-encoder",
    transformer_class="diffcr.inpainting.encoder.ContextEncoder",
    block_groups={"transformer_blocks": _ENCODER_BLOCK},
    timestep=None,
    latents="hidden_states",
    lora_targets=PIXART.lora_targets,
    call_inputs=_refuse_to_denoise,
    shape=encoder_shape,
)
