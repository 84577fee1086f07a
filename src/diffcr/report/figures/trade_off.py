"""Quality against cost, a mark per method, and the curve of fewer denoising steps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffcr.records.record import Record
from diffcr.report.comparison import Collection, Row, Value, accuracy, flops, frechet
from diffcr.report.figures.canvas import GREY, row_style, write_figure
from diffcr.report.figures.labels import PointLabel, write_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEWER_STEPS = "fewer denoising steps"
# In words and in the order in which figures have them, which have room for the first ones.
SERIES = {
    "reuse-steps": "reuse of whole steps",
    "distilled": "reuse of whole steps, distilled",
    "first-block-cache": "First-Block-Cache of diffusers",
    FEWER_STEPS: FEWER_STEPS,
    "pruning": "structured pruning, trained",
    "diffcr-lt": "DiffCR-LT, trained",
    "reuse-tokens": "reuse of tokens",
    "mod": "uniform ratios (MoD), trained",
    "diffcr-l": "DiffCR-L, trained",
    "tome": "token merging (ToMe)",
    "at-edm": "attention-driven pruning (AT-EDM)",
    "dense": "dense, trained for as long",
}
MOST_SERIES = 6
# The pipeline that every time is a share of.
_REFERENCE = "dense-20-steps"


@dataclass(frozen=True)
class TradeOffPoint:
    """A method as it was measured.

    Attributes:
        row: Name of the measured row.
        series: Points of one series are joined, in the order of their cost.
        label: Written beside the point where its series has several.
        cost: As a share of the dense model's.
        quality: Mean over the seeds.
        spread: Standard deviation over the seeds, 0 for one.
    """

    row: str
    series: str
    label: str
    cost: float
    quality: float
    spread: float


@dataclass(frozen=True)
class TradeOff:
    """A panel: one measure of quality against one of cost.

    Attributes:
        cost: Heading of the horizontal axis.
        quality: Heading of the vertical axis, whose scale is logarithmic; lower is better.
        points: In any order.
    """

    cost: str
    quality: str
    points: Sequence[TradeOffPoint]


def trade_offs(collection: Collection, timed_in: str = "") -> list[TradeOff]:
    """Wrong attributes and Frechet distance against the whole pipeline's cost.

    Cost is measured time where a record has the pipeline's; else operations times denoising steps.

    Args:
        collection: Rows, and the record of their times.
        timed_in: Name of that record; the one that timed most rows by default.
    """
    others = collection.others
    seconds = _pipeline_seconds([others[timed_in]] if timed_in else others.values())
    timed = {name: row for name, row in collection.rows.items() if name in seconds}
    if timed:
        cost = "time of the pipeline, % of dense"
        costs = {name: seconds[name] for name in timed}
        if _REFERENCE in collection.rows:
            costs.setdefault(_REFERENCE, 1.0)
            timed[_REFERENCE] = collection.rows[_REFERENCE]
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
        points.append(TradeOffPoint(name, series, number, costs[name], mean, spread))
    return points


def _series(name: str) -> tuple[str, str]:
    """What a row is a point of, and which one: its number of steps, its threshold or its ratio."""
    if matched := re.fullmatch(r"(?:dense-)?(\d+)-steps", name):
        return FEWER_STEPS, f"{matched[1]} steps"
    if matched := re.fullmatch(r"(first-block-cache)-(\d\d)", name):
        return matched[1], f"0.{matched[2]}".rstrip("0")
    # What is calibrated reuses steps, too.
    matched = re.fullmatch(
        r"(.+)-(\d+)(-finished|-steps|-tokens)?", name.replace("-calibrated", "-steps")
    )
    return (matched[1] + (matched[3] or ""), f"{matched[2]} %") if matched else (name, "")


def _steps(row: Row) -> int:
    return int(row.records[0].configuration["num_inference_steps"])


def _pipeline_seconds(records: Iterable[Record]) -> Mapping[str, float]:
    timed = [
        {"dense": 1.0, **times["ratio_to_dense"]}
        for record in records
        if (times := record.results.get("times", {}).get("pipeline"))
    ]
    return max(timed, key=len, default={})


def plot_trade_offs(
    panels: Sequence[TradeOff], path: str | Path, titles: Mapping[str, str] | None = None
) -> None:
    """Panels side by side with one legend, of six series at most.

    A series with a point that no other point beats in both cost and quality is in colour, the
    others are grey.

    Args:
        panels: At least one.
        path: PNG.
        titles: Of the series that are shown, in that order; `SERIES` by default, and then those
            that it does not know.
    """
    shown = _shown(panels[0], titles)

    def draw(figure: Figure) -> None:
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        labels = [_draw_panel(axes, panel, shown) for axes, panel in zip(row, panels, strict=True)]
        handles, names = row[0].get_legend_handles_labels()
        columns = min(2 * len(panels), len(names))
        figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False)
        # Where a label finds room depends on where the layout puts the axes.
        figure.draw_without_rendering()
        for axes, of_panel in zip(row, labels, strict=True):
            write_labels(axes, of_panel)

    write_figure(draw, path, 2.2 + 4.4 * len(panels), 4.8)


def _shown(panel: TradeOff, titles: Mapping[str, str] | None) -> Mapping[str, str]:
    """Series that are drawn, and their titles."""
    measured = {point.series for point in panel.points}
    known = {name: title for name, title in (titles or SERIES).items() if name in measured}
    others = {} if titles else {name: name for name in sorted(measured - {*known})}
    return dict([*known.items(), *others.items()][:MOST_SERIES])


def _best(points: Iterable[TradeOffPoint]) -> set[str]:
    """Series with a point of less cost than every point of its quality or a better one."""
    found, quality = set(), float("inf")
    for point in sorted(points, key=lambda point: (point.cost, point.quality)):
        if point.quality < quality:
            found.add(point.series)
            quality = point.quality
    return found


def _draw_panel(axes: Axes, panel: TradeOff, shown: Mapping[str, str]) -> list[PointLabel]:
    """Returns the labels that are to be written, those of leading series first."""
    from matplotlib.ticker import LogLocator, ScalarFormatter

    best = _best(point for point in panel.points if point.series in shown)
    labels: list[PointLabel] = []
    for place, (name, title) in enumerate(shown.items()):
        points = sorted((p for p in panel.points if p.series == name), key=lambda p: p.cost)
        style, leads = row_style(place), name in best
        if not leads:
            style["color"] = GREY
        _draw_series(axes, points, title, style, leads)
        labels += _labels(points, style["color"], leads)
    axes.set_xlabel(panel.cost)
    axes.set_yscale("log", nonpositive="clip")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter("")
    axes.set_ylabel(f"{panel.quality} (lower is better)")
    axes.grid(alpha=0.25)
    axes.margins(0.12)
    return sorted(labels, key=lambda label: -label.size)


def _draw_series(
    axes: Axes, points: Sequence[TradeOffPoint], title: str, style: dict[str, Any], leads: bool
) -> None:
    axes.errorbar(
        [100 * point.cost for point in points],
        [point.quality for point in points],
        yerr=[point.spread for point in points],
        **style,
        lw=2.4 if leads else 1.1,
        ms=8 if leads else 6,
        capsize=3,
        label=title,
        zorder=3 if leads else 2,
    )


def _labels(points: Sequence[TradeOffPoint], colour: str, leads: bool) -> list[PointLabel]:
    """Of a series' points; a point that is alone is named by the legend."""
    size = 9 if leads else 8
    named = points if len(points) > 1 else ()
    return [PointLabel(p.label, (100 * p.cost, p.quality), colour, size) for p in named]
