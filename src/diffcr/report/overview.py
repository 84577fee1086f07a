"""One self-contained page of many records: tables, figures, and where every number is from."""

from __future__ import annotations

import base64
import html
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffcr.errors import DiffCRError
from diffcr.evaluation.timing.bench import bench_tables
from diffcr.files import write_text
from diffcr.records.record import Record, read_record
from diffcr.report.comparison import (
    QUALITY_HEADER,
    Row,
    Value,
    accuracy,
    flops,
    frechet,
    is_row,
    quality_rows,
    read_rows,
)
from diffcr.report.figures.comparison import plot_compression_tables, plot_loss_against_ratio
from diffcr.report.figures.trade_off import TradeOff, TradeOffPoint, plot_trade_offs
from diffcr.report.page import make_page, table_html
from diffcr.report.tables import Table, make_tables

_ROWS = "experiments"
_STEPS = "num_inference_steps"


@dataclass(frozen=True)
class Collection:
    """Records of a directory.

    Attributes:
        rows: Of the comparison, by name; from its subdirectory `experiments`, or from itself.
        others: All other records, by file name.
    """

    rows: Mapping[str, Row]
    others: Mapping[str, Record]


def read_collection(directory: Path) -> Collection:
    """Every record of a directory.

    Raises:
        DiffCRError: There is none, or one is damaged.
    """
    if not directory.is_dir():
        raise DiffCRError(f"{directory} is not a directory: give one that holds records")
    rows = directory / _ROWS if (directory / _ROWS).is_dir() else directory
    found = read_rows(rows)
    others = {
        path.stem: read_record(path)
        for path in sorted(directory.glob("*.json"))
        if not is_row(path)
    }
    if not found and not others:
        raise DiffCRError(f"{directory} holds no records: give a directory with some")
    return Collection(found, others)


def write_overview(directory: str | Path, page: str | Path) -> Path:
    """Write the page of a directory's records; its figures are inside of it.

    Raises:
        DiffCRError: There are no records, or one is damaged.
    """
    collection = read_collection(Path(directory))
    parts = ["<h1>Methods compared</h1>"]
    if collection.rows:
        titles = {name: name for name in collection.rows}
        lines = tuple(tuple(line) for line in quality_rows(collection.rows, titles))
        parts += [_picture(title, draw) for title, draw in _figures(collection)]
        parts.append(table_html(Table("Quality and operations", QUALITY_HEADER, lines, _QUALITY)))
    for name, record in collection.others.items():
        parts += [table_html(table) for table in _named_tables(name, record)]
    parts.append(table_html(_sources(collection)))
    target = Path(page)
    write_text(target, make_page("Methods compared", parts))
    return target


_QUALITY = (
    "Mean and standard deviation over the seeds. FLOPs: of one forward, as a share of the dense "
    "model's. The judge's Frechet distance is not FID."
)


def _named_tables(name: str, record: Record) -> list[Table]:
    tables: list[Table] = []
    if record.kind in _SECTIONED:
        tables = make_tables(record)
    elif record.kind == "bench":
        tables = bench_tables(record)
    elif record.kind == "speed":
        parts = {"": record.results} if "median_seconds" in record.results else record.results
        tables = [_speed_table(part, values) for part, values in parts.items()]
    return [Table(f"{name}: {t.title}", t.columns, t.rows, t.note) for t in tables]


_SECTIONED = ("demo", "evaluation", "scores")


def _speed_table(part: str, values: Mapping[str, Mapping[str, float]]) -> Table:
    ratios = values["ratio_to_dense"]
    rows = tuple(
        (name, f"{seconds:.4f}", f"{ratios[name]:.3f}" if name in ratios else "1")
        for name, seconds in values["median_seconds"].items()
    )
    return Table(f"time {part}".strip(), ("", "median seconds", "of dense"), rows)


def _figures(collection: Collection) -> list[tuple[str, Callable[[Path], None]]]:
    rows = collection.rows
    figures: list[tuple[str, Callable[[Path], None]]] = [
        ("Quality against cost", lambda path: plot_trade_offs(trade_offs(collection), path))
    ]
    learned = {
        name: row
        for name, row in rows.items()
        if all(record.results.get("by_products") for record in row.records)
    }
    if learned:
        of = {name: row.records for name, row in learned.items()}
        figures.append(
            ("Held-out error on the way", lambda path: plot_loss_against_ratio(of, path))
        )
        tables = {name: row.records[0] for name, row in learned.items()}
        figures.append(("Learned ratios", lambda path: plot_compression_tables(tables, path)))
    return figures


def trade_offs(collection: Collection) -> list[TradeOff]:
    """Wrong attributes and Frechet distance against the whole pipeline's cost.

    Cost is measured time where a record of kind "speed" has the pipeline's; else operations times
    denoising steps.
    """
    seconds = _pipeline_seconds(collection.others.values())
    timed = {name: row for name, row in collection.rows.items() if name in seconds}
    if timed:
        cost = "time of the pipeline, % of dense"
        costs = {name: seconds[name] for name in timed}
        rows: Mapping[str, Row] = timed
    else:
        cost, rows = "operations of the denoiser over all steps, % of dense", collection.rows
        most = max(_steps(row) for row in rows.values())
        costs = {
            name: row.over_seeds(flops("total")).mean * _steps(row) / most
            for name, row in rows.items()
        }
    errors, distances = _points(rows, costs, _wrong, 100), _points(rows, costs, frechet, 1)
    return [
        TradeOff(cost, "wrong caption attributes, %", errors),
        TradeOff(cost, "judge's Frechet distance", distances),
    ]


def _wrong(results: Mapping[str, Any]) -> float:
    return 1 - accuracy(results)


def _points(
    rows: Mapping[str, Row], costs: Mapping[str, float], value: Value, factor: float
) -> list[TradeOffPoint]:
    points = []
    for name, row in rows.items():
        seeds = row.over_seeds(value)
        series, number = _series(name)
        mean, spread = factor * seeds.mean, factor * seeds.spread
        points.append(TradeOffPoint(series, number, costs[name], mean, spread))
    return points


def _series(name: str) -> tuple[str, str]:
    """What a row is a point of, and which one: its number of steps, or its ratio in per cent."""
    if matched := re.fullmatch(r".*?-?(\d+)-steps", name):
        return "fewer denoising steps", matched[1]
    matched = re.fullmatch(r"(.+)-(\d+)(-finished)?", name)
    return (matched[1] + (matched[3] or ""), matched[2]) if matched else (name, "")


def _steps(row: Row) -> int:
    return int(row.records[0].configuration[_STEPS])


def _pipeline_seconds(records: Iterable[Record]) -> Mapping[str, float]:
    for record in records:
        if record.kind == "speed" and "pipeline" in record.results:
            shares: Mapping[str, float] = record.results["pipeline"]["ratio_to_dense"]
            return {"dense": 1.0, **shares}
    return {}


def _picture(title: str, draw: Callable[[Path], None]) -> str:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "figure.png"
        draw(file)
        data = base64.b64encode(file.read_bytes()).decode()
    text = html.escape(title)
    return f'<h2>{text}</h2>\n<img src="data:image/png;base64,{data}" alt="{text}">'


def _sources(collection: Collection) -> Table:
    records = {
        **{
            f"{name}, seed {seed}": record
            for name, row in collection.rows.items()
            for seed, record in enumerate(row.records)
        },
        **collection.others,
    }
    lines = tuple(
        (
            name,
            (record.commit or "no checkout")[:10] + (", changed" if record.dirty else ""),
            record.created,
            " ".join(record.command),
            str(record.hardware.get("cpu", "")),
        )
        for name, record in records.items()
    )
    columns = ("record", "commit", "created", "command", "hardware")
    return Table("Where the numbers are from", columns, lines)
