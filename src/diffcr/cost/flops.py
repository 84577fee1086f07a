"""Floating-point operations of a transformer on fewer tokens, 2 per multiply-add (App. B).

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
        width: Of a token.
        text_width: Of a text token as the cross-attention sees it; 0 for no cross-attention.
        mlp_width: Inner width of the feed-forward.
        heads: Of each attention.
        mlp_projections: Linear layers of the feed-forward: 2, or 3 where it is gated.
        head_width: Of a head; `width / heads` by default.
    """

    width: int
    text_width: int
    mlp_width: int
    heads: int = 1
    mlp_projections: int = 2
    head_width: int | None = None

    @property
    def attention_width(self) -> int:
        """Of the attentions' inner projections."""
        return self.heads * (self.head_width or self.width // self.heads)


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


@dataclass(frozen=True)
class LayerTokens:
    """How many tokens of an image each part of a block computes.

    Attributes:
        self_attention: Its queries, keys and values.
        cross_attention: Its queries.
        mlp: The feed-forward's.
    """

    self_attention: int
    cross_attention: int
    mlp: int

    @classmethod
    def alike(cls, tokens: int) -> LayerTokens:
        """The same number in every part."""
        return cls(tokens, tokens, tokens)

    @property
    def mean(self) -> float:
        """Over the three parts."""
        return (self.self_attention + self.cross_attention + self.mlp) / 3


@dataclass(frozen=True)
class LayerCost:
    """What a method lets a layer compute.

    Attributes:
        tokens: Of the block.
        choosing: Operations that choose the tokens: routers, matching, page rank.
        block: Its sizes where a method makes it narrower; the model's by default.
    """

    tokens: LayerTokens
    choosing: Flops = Flops(0, 0)
    block: BlockShape | None = None


def block_flops(shape: BlockShape, tokens: LayerTokens, text_tokens: int) -> Flops:
    """One block.

    Self-attention runs among its own tokens, so its products fall with the square of their number.
    The projections of the text are there whatever the number, unless no token is computed: then
    the block is skipped whole.
    """
    if tokens == LayerTokens.alike(0):
        return Flops(0, 0)
    width, inner = shape.width, shape.attention_width
    linear = 4 * tokens.self_attention * width * inner
    linear += shape.mlp_projections * tokens.mlp * width * shape.mlp_width
    products = 2 * tokens.self_attention**2 * inner
    if shape.text_width:
        queries = tokens.cross_attention
        linear += 2 * queries * width * inner + 2 * text_tokens * shape.text_width * inner
        products += 2 * queries * text_tokens * inner
    return Flops(2 * linear, 2 * (linear + products))


def router_flops(shape: TransformerShape) -> Flops:
    """The router of one layer, which scores every token."""
    count = 2 * shape.image_tokens * shape.block.width
    return Flops(count, count)


def dense_flops(shape: TransformerShape) -> Flops:
    """The bare transformer: all tokens in all layers."""
    tokens = LayerTokens.alike(shape.image_tokens)
    return block_flops(shape.block, tokens, shape.text_tokens) * shape.layers + shape.outside_blocks


def routed_costs(
    shape: TransformerShape, kept_table: Sequence[Sequence[int]]
) -> list[list[LayerCost]]:
    """Layers whose routers keep these numbers of tokens, [layers][regions]."""
    router = router_flops(shape)
    return [[LayerCost(LayerTokens.alike(kept), router) for kept in row] for row in kept_table]


def layer_flops(shape: TransformerShape, cost: LayerCost) -> Flops:
    """One layer under a method."""
    block = cost.block or shape.block
    return block_flops(block, cost.tokens, shape.text_tokens) + cost.choosing


def flops_per_region(shape: TransformerShape, costs: Sequence[Sequence[LayerCost]]) -> list[Flops]:
    """The transformer under a method in each region, from a table [layers][regions]."""
    assert len(costs) == shape.layers, "one row per layer"
    counts = []
    for column in zip(*costs, strict=True):
        count = shape.outside_blocks
        for cost in column:
            count += layer_flops(shape, cost)
        counts.append(count)
    return counts


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
    heads = config["num_attention_heads"]
    inner = heads * config["attention_head_dim"]
    block = BlockShape(inner, config["cross_attention_dim"] or 0, 4 * inner, heads)
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
