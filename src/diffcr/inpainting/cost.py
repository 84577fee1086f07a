"""Sizes of the two models, for counting their operations (`diffcr.core.flops`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from diffcr.core.flops import BlockShape, Flops, TransformerShape, pixart_shape


def decoder_shape(
    config: Mapping[str, Any], text_tokens: int, masked_tokens: int
) -> TransformerShape:
    """A decoder on some of its tokens.

    Args:
        config: The decoder's `config`.
        text_tokens: Tokens of a prompt, padding included.
        masked_tokens: Of one picture.
    """
    side = config["patch_size"]
    # A picture one token high holds the masked ones.
    shape = pixart_shape(config, text_tokens, side, side * masked_tokens)
    width = shape.block.width
    others = (config["sample_size"] // side) ** 2 - masked_tokens
    multiply_adds = masked_tokens * (width + config["context_channels"]) * width
    multiply_adds += others * width * config["in_channels"] * side**2
    joining = Flops(2 * multiply_adds, 2 * multiply_adds)
    return replace(shape, outside_blocks=shape.outside_blocks + joining)


def encoder_shape(config: Mapping[str, Any]) -> TransformerShape:
    """A context encoder, which sees every token of a picture once.

    Args:
        config: The encoder's `config`.
    """
    side = config["patch_size"]
    tokens = (config["sample_size"] // side) ** 2
    heads = config["num_attention_heads"]
    width = heads * config["attention_head_dim"]
    multiply_adds = tokens * width * (config["in_channels"] + 1) * side**2
    embedding = Flops(2 * multiply_adds, 2 * multiply_adds)
    block = BlockShape(width, text_width=0, mlp_width=4 * width, heads=heads)
    return TransformerShape(block, config["num_layers"], tokens, 0, embedding)
