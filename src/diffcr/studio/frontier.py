"""Quality against time, from records: series to switch on and off, and the pictures of a point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from diffcr.errors import DiffCRError
from diffcr.report.comparison import read_collection
from diffcr.report.figures.canvas import PALETTE
from diffcr.report.figures.trade_off import (
    MOST_SERIES,
    SERIES,
    TradeOff,
    TradeOffPoint,
    trade_offs,
)
from diffcr.scenes import ScenesDataset
from diffcr.studio.chart import Axis, Line, Mark, draw_chart
from diffcr.studio.pictures import Thumbnail

REFERENCE = "dense"
_TIMED_IN = "frontier-embedded"
# In place of the palette's yellow, which is lost on white.
_COLOURS = tuple(colour for colour in PALETTE if colour != "#F0E442")
_SHEET_ROWS = "experiments"
_SIZE = (900, 400)


@dataclass(frozen=True)
class Frontier:
    """What the records say of quality and time.

    Attributes:
        panel: Wrong attributes against the time of the pipeline.
        directory: Of the records.
    """

    panel: TradeOff
    directory: Path

    @property
    def series(self) -> dict[str, str]:
        """Names of the series that were measured and their titles, those of `SERIES` first."""
        measured = {point.series for point in self.panel.points}
        known = {name: _sentence(title) for name, title in SERIES.items() if name in measured}
        return known | {name: name for name in sorted(measured - {*known})}

    def draw(self, shown: Sequence[str]) -> str:
        """The chart of some series, by name.

        Raises:
            DiffCRError: There are more than `MOST_SERIES` of them.
        """
        if len(shown) > MOST_SERIES:
            raise DiffCRError(
                f"{len(shown)} methods are chosen: a chart shows {MOST_SERIES} at most"
            )
        if not shown:
            return "<p>No method is chosen.</p>"
        points = self.panel.points
        horizontal = Axis.around(self.panel.cost, [100 * point.cost for point in points])
        qualities = [point.quality for point in points if point.series in shown]
        vertical = Axis.around(f"{self.panel.quality} (lower is better)", qualities, least=0)
        lines = [self._line(name) for name in self.series if name in shown]
        return draw_chart("Quality against time", lines, horizontal, vertical, _SIZE)

    def _line(self, name: str) -> Line:
        points = [point for point in self.panel.points if point.series == name]
        marks = [
            Mark(100 * point.cost, point.quality, self.describe(point), point.row)
            for point in sorted(points, key=lambda point: point.cost)
        ]
        return Line(self.series[name], _COLOURS[[*self.series].index(name) % len(_COLOURS)], marks)

    def point(self, row: str) -> TradeOffPoint:
        """A point by its row.

        Raises:
            DiffCRError: There is none.
        """
        for point in self.panel.points:
            if point.row == row:
                return point
        raise DiffCRError(f"no row is called {row!r}")

    def describe(self, point: TradeOffPoint) -> str:
        """A point in words."""
        title = self.series[point.series]
        which = f", {point.label}" if point.label else ""
        return (
            f"{title}{which}: {point.cost:.0%} of the dense time, "
            f"{point.quality:.1f}% of the attributes wrong"
        )

    def pictures(self, row: str) -> list[Thumbnail]:
        """Pictures that were kept of a row, with their captions; none where none were."""
        folder = self.directory / _SHEET_ROWS
        sheet = (folder if folder.is_dir() else self.directory) / f"{row}-seed-0.png"
        if not sheet.is_file():
            return []
        with Image.open(sheet) as opened:
            whole = opened.convert("RGB")
        side = whole.height
        captions = [scene.caption for scene in ScenesDataset("test", size=whole.width // side)]
        return [
            Thumbnail(whole.crop((place * side, 0, (place + 1) * side, side)), caption)
            for place, caption in enumerate(captions)
        ]


def read_frontier(directory: Path) -> Frontier:
    """What a directory of records says.

    Raises:
        DiffCRError: It holds no records of quality, or one is damaged.
    """
    collection = read_collection(directory)
    if not collection.rows:
        raise DiffCRError(f"{directory} holds no records of quality: give benchmarks/results")
    timed_in = _TIMED_IN if _TIMED_IN in collection.others else ""
    wrong, _ = trade_offs(collection, timed_in)
    return Frontier(wrong, directory)


def _sentence(title: str) -> str:
    return title[0].upper() + title[1:]
