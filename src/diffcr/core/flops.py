"""Floating-point operations of a transformer at k kept tokens, 2 per multiply-add (App. B).

Two counts. `linear` holds the matrix products of linear layers only, which is how the paper counts;
`total` adds the two products inside scaled-dot-product attention, in self- and cross-attention.
Norms, activations, softmax and elementwise work are in neither. All counts are for one image and
one forward pass; multiply by the batch, and by 2 where guidance runs the model twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_TIMESTEP_CHANNELS = 256
_MODULATIONS = 6


@dataclass(frozen=True)
class Flops:
    """A count of floating-point operations.

    Attributes:
        linear: In the matrix products of linear layers, the paper's count.
        total: With the products inside attention.
    """

    linear: float
    total: float

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.linear + other.linear, self.total + other.total)

    def __mul__(self, times: float) -> Flops:
        return Flops(self.linear * times, self.total * times)


@dataclass(frozen=True)
class BlockShape:
    """Sizes of a block with self-attention, cross-attention to text and a feed-forward.

    Attributes:
        width: Of a token, and of the attentions' inner projections.
        text_width: Of a text token as the cross-attention sees it; 0 for no cross-attention.
        mlp_width: Inner width of the feed-forward.
        mlp_projections: Linear layers of the feed-forward: 2, or 3 where it is gated.
    """

    width: int
    text_width: int
    mlp_width: int
    mlp_projections: int = 2


@dataclass(frozen=True)
class TransformerShape:
    """Sizes of a diffusion transformer and of what it is called with.

    Attributes:
        block: Of every block.
        layers: Number of blocks.
        image_tokens: Routed tokens of one image.
        text_tokens: Tokens of one prompt.
        outside_blocks: Count of everything that no routing changes: patch embedding, timestep
            and caption projections, output projection.
    """

    block: BlockShape
    layers: int
    image_tokens: int
    text_tokens: int
    outside_blocks: Flops


def block_flops(shape: BlockShape, kept_tokens: int, text_tokens: int) -> Flops:
    """One block that computes `kept_tokens` of an image's tokens.

    Attention runs among the kept tokens, so its part falls with the square of their number. The
    projections of the text are there whatever the number, unless none is kept: then the block is
    skipped whole.
    """
    if kept_tokens == 0:
        return Flops(0, 0)
    width, kept = shape.width, kept_tokens
    self_attention = 4 * kept * width * width
    feed_forward = shape.mlp_projections * kept * width * shape.mlp_width
    linear = self_attention + feed_forward
    products = 2 * kept * kept * width
    if shape.text_width:
        linear += 2 * kept * width * width + 2 * text_tokens * shape.text_width * width
        products += 2 * kept * text_tokens * width
    return Flops(2 * linear, 2 * (linear + products))


def router_flops(shape: TransformerShape) -> Flops:
    """The routers of all layers, which score every token."""
    count = 2 * shape.layers * shape.image_tokens * shape.block.width
    return Flops(count, count)


def dense_flops(shape: TransformerShape) -> Flops:
    """The bare transformer: all tokens in all layers, no routers."""
    block = block_flops(shape.block, shape.image_tokens, shape.text_tokens)
    return block * shape.layers + shape.outside_blocks


def routed_flops(shape: TransformerShape, kept_tokens: Sequence[int]) -> Flops:
    """The routed transformer in one timestep region, routers included.

    Args:
        shape: Of the transformer.
        kept_tokens: Of each layer, a column of `Compressor.kept_tokens(shape.image_tokens)`.
    """
    assert len(kept_tokens) == shape.layers, "one number of kept tokens per layer"
    count = router_flops(shape) + shape.outside_blocks
    for kept in kept_tokens:
        count += block_flops(shape.block, kept, shape.text_tokens)
    return count


def flops_per_region(shape: TransformerShape, kept_table: Sequence[Sequence[int]]) -> list[Flops]:
    """The routed transformer in each region, from a table [layers][regions] of kept tokens."""
    return [routed_flops(shape, column) for column in zip(*kept_table, strict=True)]


def mean_flops(counts: Sequence[Flops]) -> Flops:
    """Mean of counts, for example over the regions of the steps of a sampler."""
    total = Flops(0, 0)
    for count in counts:
        total += count
    return total * (1 / len(counts))


def pixart_shape(
    config: Mapping[str, Any],
    text_tokens: int,
    height: int | None = None,
    width: int | None = None,
) -> TransformerShape:
    """Sizes of a PixArt transformer (diffusers/models/transformers/pixart_transformer_2d.py).

    Args:
        config: The transformer's `config`.
        text_tokens: Tokens of a prompt as the transformer is called with, padding included.
        height: Of the latents, `sample_size` by default.
        width: Of the latents, `sample_size` by default.
    """
    patch = config["patch_size"]
    image_tokens = ((height or config["sample_size"]) // patch) * (
        (width or config["sample_size"]) // patch
    )
    inner = config["num_attention_heads"] * config["attention_head_dim"]
    block = BlockShape(inner, config["cross_attention_dim"] or 0, 4 * inner)
    patches = config["in_channels"] * patch**2
    predictions = (config["out_channels"] or config["in_channels"]) * patch**2
    multiply_adds = image_tokens * inner * (patches + predictions)
    multiply_adds += inner * (_TIMESTEP_CHANNELS + inner + _MODULATIONS * inner)
    if config.get("caption_channels"):
        multiply_adds += text_tokens * inner * (config["caption_channels"] + inner)
    conditioned = config.get("use_additional_conditions")
    # Left open, the host decides by the size (pixart_transformer_2d.py).
    if config["sample_size"] == 128 if conditioned is None else conditioned:
        third = inner // 3
        multiply_adds += 3 * third * (_TIMESTEP_CHANNELS + third)
    outside = Flops(2 * multiply_adds, 2 * multiply_adds)
    return TransformerShape(block, config["num_layers"], image_tokens, text_tokens, outside)
