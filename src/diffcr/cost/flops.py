"""Counts of floating-point operations, 2 per multiply-add (App. B).

Two counts. `linear` holds the matrix products of linear layers only, which is how the paper counts;
`total` adds the two products inside scaled-dot-product attention, in self- and cross-attention.
What chooses tokens is counted, too: routers in both, a matching or a page rank in `total`. Norms,
activations, softmax and elementwise work are in neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


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


def mean_flops(counts: Sequence[Flops]) -> Flops:
    """Mean of counts, for example over the regions of the steps of a sampler."""
    return sum(counts, Flops(0, 0)) * (1 / len(counts))


@dataclass(frozen=True)
class FlopCount:
    """One forward of a batch, without guidance; multiply by 2 where guidance runs the model twice.

    Attributes:
        image_tokens: Routed tokens of a sample.
        text_tokens: Of a prompt, padding included.
        batch_size: Samples.
        skipped: Share of its tokens that a layer does not compute, mean over its parts, [L][R] in
            [0, 1].
        dense: Of the bare model.
        per_region: Of the model under its method in every timestep region, [R].
        per_layer: Of its layers, [L][R], with what chooses their tokens.
        region_names: Of the regions; None for equal parts of the noise range.
    """

    image_tokens: int
    text_tokens: int
    batch_size: int
    skipped: Sequence[Sequence[float]]
    dense: Flops
    per_region: Sequence[Flops]
    per_layer: Sequence[Sequence[Flops]]
    region_names: Sequence[str] | None = None

    @property
    def mean(self) -> Flops:
        """Over the timestep regions."""
        return mean_flops(self.per_region)

    def to_json_dict(self) -> dict[str, Any]:
        """Values by name; operations, not multiples of them."""
        values = asdict(self)
        layers = {name: values.pop(name) for name in ("per_region", "per_layer")}
        return {**values, "mean": asdict(self.mean), **layers}
