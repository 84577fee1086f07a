"""Operations of a method on a model that is known by its configuration alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from diffcr.core.flops import (
    Flops,
    TransformerShape,
    block_flops,
    dense_flops,
    flops_per_region,
    mean_flops,
    router_flops,
)
from diffcr.core.ratios import kept_tokens
from diffcr.evaluation.tables import Table, region_headings

_GIGA = 1e9


@dataclass(frozen=True)
class FlopCount:
    """One forward of a batch, without guidance.

    Attributes:
        shape: Of the model and its inputs.
        batch_size: Samples.
        bins: Compression of every layer and region in tenths, [L][R].
        dense: Of the bare model.
        per_region: Of the routed model in every timestep region.
        per_layer: Of its blocks and their routers, [L][R].
    """

    shape: TransformerShape
    batch_size: int
    bins: Sequence[Sequence[int]]
    dense: Flops
    per_region: Sequence[Flops]
    per_layer: Sequence[Sequence[Flops]]

    @property
    def mean(self) -> Flops:
        """Over the timestep regions."""
        return mean_flops(self.per_region)

    def to_json_dict(self) -> dict[str, Any]:
        """Values by name; operations, not multiples of them."""
        return {
            "image_tokens": self.shape.image_tokens,
            "text_tokens": self.shape.text_tokens,
            "batch_size": self.batch_size,
            "compression_ratios": [[b / 10 for b in row] for row in self.bins],
            "dense": asdict(self.dense),
            "mean": asdict(self.mean),
            "per_region": [asdict(count) for count in self.per_region],
            "per_layer": [[asdict(count) for count in row] for row in self.per_layer],
        }


def count_flops(
    shape: TransformerShape, bins: Sequence[Sequence[int]] | None, batch_size: int
) -> FlopCount:
    """Count a model at a table of compression ratios.

    Args:
        shape: Of the model.
        bins: [L][R] tenths of the tokens that bypass a layer; None for the dense model, which has
            no routers either.
        batch_size: Samples.
    """
    dense = dense_flops(shape) * batch_size
    tokens, text = shape.image_tokens, shape.text_tokens
    router = router_flops(shape) * (1 / shape.layers)
    if bins is None:
        bins = [[0]] * shape.layers
        layer = block_flops(shape.block, tokens, text) * batch_size
        return FlopCount(shape, batch_size, bins, dense, [dense], [[layer]] * shape.layers)
    kept = [[kept_tokens(tokens, bin_index) for bin_index in row] for row in bins]
    per_layer = [
        [(block_flops(shape.block, count, text) + router) * batch_size for count in row]
        for row in kept
    ]
    per_region = [count * batch_size for count in flops_per_region(shape, kept)]
    return FlopCount(shape, batch_size, bins, dense, per_region, per_layer)


def flop_tables(name: str, count: FlopCount) -> list[Table]:
    """A method's totals beside the dense model's, then its layers, in G."""
    shape = count.shape
    rows = [("dense", *_cells(count.dense, count.dense)), (name, *_cells(count.mean, count.dense))]
    note = (
        f"{shape.image_tokens} image tokens, {shape.text_tokens} text tokens, batch "
        f"{count.batch_size}, one forward without guidance. linear: the products of linear layers, "
        "the paper's count; total: with those inside attention."
    )
    columns = ("method", "linear, G", "of dense", "total, G", "of dense")
    regions = len(count.per_region)
    layers = [
        (
            str(layer),
            *(
                f"{_giga(value.total)} ({10 * tenths} %)"
                for value, tenths in zip(values, bins, strict=True)
            ),
        )
        for layer, (values, bins) in enumerate(zip(count.per_layer, count.bins, strict=True))
    ]
    headings = region_headings(regions) if regions > 1 else ("all timesteps",)
    return [
        Table("Floating-point operations", columns, tuple(rows), note),
        Table("Total per layer, G (tokens skipped)", ("layer", *headings), tuple(layers)),
    ]


def _cells(count: Flops, dense: Flops) -> tuple[str, str, str, str]:
    return (
        _giga(count.linear),
        f"{count.linear / dense.linear:.1%}",
        _giga(count.total),
        f"{count.total / dense.total:.1%}",
    )


def _giga(count: float) -> str:
    return f"{count / _GIGA:.{1 if count >= 100 * _GIGA else 4}f}"
