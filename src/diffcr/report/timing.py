"""Tables of what was timed: methods beside each other on one model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffcr.records.record import Record
from diffcr.report.tables import Table

_MIB = 2**20


def time_tables(record: Record) -> list[Table]:
    """Medians and ratios to the dense model of every part of `results["times"]`."""
    return [
        Table(
            f"time {part}",
            ("", "median seconds", "of dense"),
            tuple(
                (name, f"{seconds:.4f}", _ratio(values["ratio_to_dense"], name))
                for name, seconds in values["median_seconds"].items()
            ),
        )
        for part, values in record.results.get("times", {}).items()
    ]


def _ratio(ratios: Mapping[str, float], name: str) -> str:
    return f"{ratios[name]:.3f}" if name in ratios else "1"


def bench_tables(record: Record) -> list[Table]:
    """Of `results["batches"]`: per batch size what was measured, then what operations predict."""
    tables, settings = [], record.configuration
    for batch_size, measured in record.results.get("batches", {}).items():
        where = (
            f"{settings['model']}, {settings['image_tokens']} image tokens, {settings['dtype']}, "
            f"batch {batch_size}"
        )
        left_out = record.results["left_out"].get(batch_size, {})
        tables += [_time_table(where, measured, left_out), _efficiency_table(measured)]
    return tables


def _time_table(where: str, measured: Mapping[str, Any], left_out: Mapping[str, str]) -> Table:
    rows = [
        (
            name,
            f"{1000 * values['median_seconds']:.2f}",
            f"{values['ratio_to_dense']:.3f}",
            _mebibytes(values, "peak"),
            _mebibytes(values, "rise"),
        )
        for name, values in measured.items()
    ]
    note = (
        "Medians of forwards taken in turns; of dense: median over the rounds of a method's time "
        "by that of dense, compiled or replayed alike. rise: the peak without what was held "
        "before the forward."
    )
    note += "".join(f" {name} was left out: {reason}." for name, reason in left_out.items())
    columns = ("method", "median, ms", "of dense", "peak, MiB", "rise, MiB")
    return Table(f"Denoiser: {where}", columns, tuple(rows), note)


def _mebibytes(values: Mapping[str, Any], name: str) -> str:
    memory = values.get("peak_memory")
    return "-" if memory is None else f"{memory[name] / _MIB:.1f}"


def _efficiency_table(measured: Mapping[str, Any]) -> Table:
    rows = [
        (
            name,
            *(f"{100 * values['flops_ratio'][count]:.1f} %" for count in ("linear", "total")),
            *(f"{values['efficiency'][count]:.3f}" for count in ("linear", "total")),
        )
        for name, values in measured.items()
    ]
    note = (
        "linear: the products of linear layers, the paper's count; total: with those inside "
        "attention. Efficiency: the measured speed-up by the one that these FLOPs predict."
    )
    columns = ("method", "linear", "total", "efficiency, linear", "total")
    return Table("FLOPs of dense, and efficiency", columns, tuple(rows), note)
