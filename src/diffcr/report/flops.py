"""Counted operations of a method, as tables."""

from __future__ import annotations

from diffcr.cost.flops import FlopCount, Flops
from diffcr.report.tables import Table, region_headings

_GIGA = 1e9


def flop_tables(name: str, count: FlopCount) -> list[Table]:
    """A method's totals beside the dense model's, then its layers, in G."""
    rows = [("dense", *_cells(count.dense, count.dense)), (name, *_cells(count.mean, count.dense))]
    note = (
        f"{count.image_tokens} image tokens, {count.text_tokens} text tokens, batch "
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
    headings = tuple(count.region_names or headings)
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
