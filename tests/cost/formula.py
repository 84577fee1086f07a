"""What a PixArt transformer computes, written out: an oracle beside the counter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffcr.cost.flops import Flops


def block_flops(config: Mapping[str, Any], tokens: int, text_tokens: int) -> Flops:
    """One block on as many tokens, without what chooses them."""
    if tokens == 0:
        return Flops(0, 0)
    width = config["num_attention_heads"] * config["attention_head_dim"]
    linear = 4 * tokens * width**2 + 2 * tokens * width**2 + 2 * tokens * width * 4 * width
    linear += 2 * text_tokens * config["cross_attention_dim"] * width
    products = 2 * tokens**2 * width + 2 * tokens * text_tokens * width
    return Flops(2 * linear, 2 * (linear + products))


def outside_flops(config: Mapping[str, Any], tokens: int, text_tokens: int) -> Flops:
    """Patch embedding, timestep and caption projections, output projection."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    patches = (config["in_channels"] + config["out_channels"]) * config["patch_size"] ** 2
    products = tokens * width * patches + width * (256 + width + 6 * width)
    products += text_tokens * width * (config["caption_channels"] + width)
    if config["use_additional_conditions"]:
        products += 3 * (width // 3) * (256 + width // 3)
    return Flops(2 * products, 2 * products)


def router_flops(config: Mapping[str, Any], tokens: int) -> Flops:
    """Scores of every token."""
    count = 2 * tokens * config["num_attention_heads"] * config["attention_head_dim"]
    return Flops(count, count)
