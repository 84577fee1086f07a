"""What the records say of step caches, as a table."""

from __future__ import annotations

from typing import Any

from claim import RESULTS, exact, rows
from inpainting_tables import Table
from reuse_tables import standard_error

from diffcr.records.record import read_record
from diffcr.report.comparison import Row, accuracy, frechet

_METHODS = {
    "dense": "dense",
    "diffcr": "DiffCR, 30 %",
    "reuse-30": "reuse, 30 % of the steps",
    "reuse-50": "reuse, 50 % of the steps",
    "fbc-08": "First-Block-Cache, 0.08",
    "fbc-12": "First-Block-Cache, 0.12",
    "fbc-20": "First-Block-Cache, 0.2",
    "taylorseer-3": "TaylorSeer, every third step",
    "diffcr-fbc-08": "DiffCR and First-Block-Cache, 0.08",
    "diffcr-fbc-12": "DiffCR and First-Block-Cache, 0.12",
    "diffcr-fbc-20": "DiffCR and First-Block-Cache, 0.2",
    "diffcr-taylorseer-3": "DiffCR and TaylorSeer",
}
_STEPS = {"20": "", "10": "-at-10-steps"}
_HEADER = (
    "embedded pipeline",
    "denoising steps",
    "of the blocks are computed",
    "CPU seconds, of dense at 20 steps",
    "caption accuracy, %",
    "its standard error",
    "all right, %",
    "judge's Frechet distance",
)
_TIMES = RESULTS / "step-caches-embedded.json"
# Rows of the same settings that stand elsewhere, too.
_SAME = {"cached-dense": "dial-dense"}


def cached_table() -> Table:
    """Caches, DiffCR, and both; what was not measured is a dash."""
    measured = rows()
    times = read_record(_TIMES).results if _TIMES.exists() else {}
    lines = []
    for steps, suffix in _STEPS.items():
        for key, title in _METHODS.items():
            name = f"cached-{key}{suffix}"
            cells = [
                _computed(times, name),
                _ratio(times, name),
                *_quality(measured.get(_SAME.get(name, name))),
            ]
            if {*cells} != {"-"}:
                lines.append([title, steps, *cells])
    return _HEADER, lines


def _computed(times: Any, name: str) -> str:
    share = times.get("computed_share", {}).get(name)
    return "-" if share is None else f"{100 * share:.0f} %"


def _ratio(times: Any, name: str) -> str:
    ratios = {"cached-dense": 1.0, **times.get("cpu_seconds", {}).get("ratio_to_dense", {})}
    return f"{ratios[name]:.2f}" if times and name in ratios else "-"


def _quality(row: Row | None) -> list[str]:
    if row is None:
        return ["-"] * 4
    return [
        row.over_seeds(accuracy).text(".1f", 100),
        f"{100 * row.over_seeds(standard_error).mean:.2f}",
        row.over_seeds(exact).text(".0f", 100),
        row.over_seeds(frechet).text(".0f"),
    ]


TABLES = {"step caches": cached_table}
