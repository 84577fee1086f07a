"""Quality against cost, a mark per method, and the curve of fewer denoising steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffcr.report.figures.canvas import LINE_STYLES, ROW_COLOURS, ROW_MARKERS, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class TradeOffPoint:
    """A method as it was measured.

    Attributes:
        series: Points of one series are joined, in the order of their cost.
        label: Written beside the point where its series has several.
        cost: As a share of the dense model's.
        quality: Mean over the seeds.
        spread: Standard deviation over the seeds, 0 for one.
    """

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


def plot_trade_offs(panels: Sequence[TradeOff], path: str | Path) -> None:
    """Panels side by side with one legend."""

    def draw(figure: Figure) -> None:
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, panel in zip(row, panels, strict=True):
            _draw_panel(axes, panel)
        handles, labels = row[0].get_legend_handles_labels()
        columns = min(4, len(labels))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)

    write_figure(draw, path, 0.6 + 5.2 * len(panels), 4.6)


def _draw_panel(axes: Axes, panel: TradeOff) -> None:
    names = list(dict.fromkeys(point.series for point in panel.points))
    for place, name in enumerate(names):
        points = sorted((p for p in panel.points if p.series == name), key=lambda p: p.cost)
        axes.errorbar(
            [100 * point.cost for point in points],
            [point.quality for point in points],
            yerr=[point.spread for point in points],
            color=ROW_COLOURS[place % len(ROW_COLOURS)],
            marker=ROW_MARKERS[place % len(ROW_MARKERS)],
            ls=LINE_STYLES[place % len(LINE_STYLES)],
            lw=1.1,
            ms=6,
            capsize=3,
            label=name,
        )
        for point in points if len(points) > 1 else ():
            axes.annotate(
                point.label,
                (100 * point.cost, point.quality),
                xytext=(5, 4),
                textcoords="offset points",
                fontsize=8,
            )
    axes.set_xlabel(panel.cost)
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylabel(f"{panel.quality} (lower is better)")
    axes.grid(alpha=0.25)
    axes.margins(0.1)
