"""Operations of a method on a model that is known by its configuration alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from diffcr.cost.flops import (
    Flops,
    LayerCost,
    LayerTokens,
    TransformerShape,
    dense_flops,
    flops_per_region,
    layer_flops,
    mean_flops,
)
from diffcr.report.tables import Table, region_headings

_GIGA = 1e9


@dataclass(frozen=True)
class FlopCount:
    """One forward of a batch, without guidance.

    Attributes:
        shape: Of the model and its inputs.
        batch_size: Samples.
        skipped: Share of its tokens that a layer does not compute, mean over its parts, [L][R].
        dense: Of the bare model.
        per_region: Of the model under the method in every timestep region.
        per_layer: Of its layers, [L][R], with what chooses their tokens.
    """

    shape: TransformerShape
    batch_size: int
    skipped: Sequence[Sequence[float]]
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
            "skipped": [list(row) for row in self.skipped],
            "dense": asdict(self.dense),
            "mean": asdict(self.mean),
            "per_region": [asdict(count) for count in self.per_region],
            "per_layer": [[asdict(count) for count in row] for row in self.per_layer],
        }


def count_flops(
    shape: TransformerShape, costs: Sequence[Sequence[LayerCost]] | None, batch_size: int
) -> FlopCount:
    """Count a model under a method.

    Args:
        shape: Of the model.
        costs: What every layer computes in every region, [L][R]; None for the dense model.
        batch_size: Samples.
    """
    tokens = shape.image_tokens
    costs = costs or [[LayerCost(LayerTokens.alike(tokens))]] * shape.layers
    return FlopCount(
        shape,
        batch_size,
        [[1 - cost.tokens.mean / tokens for cost in row] for row in costs],
        dense_flops(shape) * batch_size,
        [count * batch_size for count in flops_per_region(shape, costs)],
        [[layer_flops(shape, cost) * batch_size for cost in row] for row in costs],
    )


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
                f"{_giga(value.total)} ({share:.0%})"
                for value, share in zip(values, skipped, strict=True)
            ),
        )
        for layer, (values, skipped) in enumerate(zip(count.per_layer, count.skipped, strict=True))
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
