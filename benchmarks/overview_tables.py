"""Tables of the README that put others together: time at a glance, and families of models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from claim import RESULTS
from rows import ROOT

from diffcr.records.record import read_record

_ROUTED = ("diffcr:0.3", "diffcr:0.5")
_CPU = "forward-pixart-sigma-xl-512"
_MODEL = re.compile(r"\| (\w+?)(?:Transformer)?(?:[23]D)?(?:Model)?(?: \(.*?\))? \| (.*) \|")
# Columns of the matrix's second table, under the names that they have together.
_METHODS = {
    "DiffCR, uniform ratios": ("diffcr", "mod"),
    "reuse of steps": ("reuse:steps",),
    "token merging": ("tome:block",),
    "reuse of tokens, pruning, AT-EDM": ("reuse:tokens", "pruning", "at-edm"),
}
_KINDS = {"2D": "pictures", "3D": "videos"}


def speed_table() -> tuple[list[str], list[list[str]]]:
    """Routed forwards against dense ones, and what operations alone predict."""
    header = ["PixArt-Sigma XL/2's configuration, a forward against the dense one"]
    for name in _ROUTED:
        header += [f"DiffCR, {100 * float(name.partition(':')[2]):.0f} %", "operations"]
    lines = [_speed_row("two CPU cores, float32, 512 x 512, batch 1", _CPU, "1")]
    for pixels in (512, 1024):
        record = f"forward-pixart-sigma-xl-{pixels}-h100"
        for way, batch, suffix in (
            ("eager", "16", ""),
            ("CUDA graph", "1", ", CUDA graph"),
            ("eager", "1", ""),
        ):
            where = f"one H100, bfloat16, {pixels} x {pixels}, batch {batch}, {way}"
            lines.append(_speed_row(where, record, batch, suffix))
    return header, lines


def _speed_row(where: str, record: str, batch: str, suffix: str = "") -> list[str]:
    measured: Mapping[str, Any] = read_record(RESULTS / f"{record}.json").results["batches"][batch]
    line = [where]
    for name in _ROUTED:
        values = measured[name + suffix]
        line += [f"{values['ratio_to_dense']:.2f}", f"{values['flops_ratio']['total']:.2f}"]
    return line


def families_table() -> tuple[list[str], list[list[str]]]:
    """Classes by what works on them, from the matrix that the families' tests write."""
    promises, methods = _matrix()
    groups: dict[tuple[str, ...], list[str]] = {}
    for (model, kind), works in methods.items():
        cells = [
            "yes" if all(works[column] == "yes" for column in columns) else "no"
            for columns in _METHODS.values()
        ]
        trains = promises[model, kind]["training"].partition(" [")[0]
        trains = "without a first frame" if trains.startswith("some") else trains
        groups.setdefault((kind, *cells, trains), []).append(model)
    header = ["models of", "classes", *_METHODS, "`diffcr train`"]
    return header, [[kind, ", ".join(models), *cells] for (kind, *cells), models in groups.items()]


def _matrix() -> list[dict[tuple[str, str], dict[str, str]]]:
    """Both tables of docs/models.md: by a class's name and kind, its cells by their columns."""
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    written = text.partition("<!-- matrix -->")[2]
    tables: list[dict[tuple[str, str], dict[str, str]]] = []
    columns: list[str] = []
    for line in written.splitlines():
        if line.startswith("|  |"):
            columns = [cell.strip() for cell in line.strip("| ").split(" | ")]
            tables.append({})
        elif columns and (found := _MODEL.fullmatch(line)):
            kind = next((kind for mark, kind in _KINDS.items() if mark in line), "")
            cells = dict(zip(columns, found[2].split(" | "), strict=True))
            tables[-1][found[1], kind] = cells
        elif line.startswith("| no method"):
            break
    return tables


TABLES = {"speed overview": speed_table, "families": families_table}
