"""A chart as SVG: it grows with the page, and its points can be clicked and reached by keyboard."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 20, 16, 52
_RADIUS = 7
_STEPS = (1, 2, 5)


@dataclass(frozen=True)
class Mark:
    """A point.

    Attributes:
        x: On the horizontal axis.
        y: On the vertical axis.
        label: Read aloud, and shown beside the pointer.
        name: What a click on it says; empty where it cannot be opened.
    """

    x: float
    y: float
    label: str
    name: str = ""


@dataclass(frozen=True)
class Line:
    """Points of one colour.

    Attributes:
        title: In the legend.
        colour: CSS.
        marks: At least one.
        joined: Whether they are, in their order.
    """

    title: str
    colour: str
    marks: Sequence[Mark]
    joined: bool = True


@dataclass(frozen=True)
class Axis:
    """An axis from `least` to `most`.

    Attributes:
        title: What it shows, with its unit.
        least: Its lower end.
        most: Its upper end, above `least`.
    """

    title: str
    least: float
    most: float

    @classmethod
    def around(cls, title: str, values: Sequence[float], least: float | None = None) -> Axis:
        """One that holds all values, with some room; it begins at `least` where that is given."""
        low = min(values) if least is None else least
        room = 0.06 * (max(values) - low or 1.0)
        return cls(title, low - room if least is None else least, max(values) + room)

    def share(self, value: float) -> float:
        """Where a value lies, 0 at the lower end and 1 at the upper."""
        return (value - self.least) / (self.most - self.least)

    def ticks(self) -> list[float]:
        """About five round values."""
        rough = (self.most - self.least) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next((s * power for s in _STEPS if s * power >= rough), 10 * power)
        first = math.ceil(self.least / step)
        return [i * step for i in range(first, math.floor(self.most / step) + 1)]


@dataclass(frozen=True)
class _Frame:
    """Where values lie in a chart of `width` by `height`."""

    horizontal: Axis
    vertical: Axis
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.width - _RIGHT

    @property
    def bottom(self) -> int:
        return self.height - _BOTTOM

    def across(self, value: float) -> float:
        return round(_LEFT + self.horizontal.share(value) * (self.right - _LEFT), 1)

    def down(self, value: float) -> float:
        return round(self.bottom - self.vertical.share(value) * (self.bottom - _TOP), 1)


def draw_chart(
    title: str, lines: Sequence[Line], horizontal: Axis, vertical: Axis, size: tuple[int, int]
) -> str:
    """SVG with a legend below. A mark with a name is a button that carries it as `data-name`.

    Args:
        title: Read aloud before the marks.
        lines: Drawn one over the other.
        horizontal: Its ticks are below.
        vertical: Its ticks are on the left.
        size: Width and height in pixels at which letters have the page's size.
    """
    width, height = size
    frame = _Frame(horizontal, vertical, width, height)
    parts = _grid(frame)
    for line in lines:
        points = [(frame.across(mark.x), frame.down(mark.y)) for mark in line.marks]
        if line.joined:
            path = " ".join(f"{x},{y}" for x, y in points)
            parts.append(f'<polyline points="{path}" stroke="{line.colour}" class="line"/>')
        for mark, (x, y) in zip(line.marks, points, strict=True):
            parts.append(_draw_mark(mark, x, y, line.colour))
    legend = "".join(
        f'<li><span style="background:{line.colour}"></span>{escape(line.title)}</li>'
        for line in lines
    )
    return (
        f'<figure class="chart"><svg viewBox="0 0 {width} {height}" role="group" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg><ul>{legend}</ul></figure>'
    )


def _grid(frame: _Frame) -> list[str]:
    parts = []
    for value in frame.horizontal.ticks():
        x = frame.across(value)
        parts.append(f'<path class="grid" d="M{x} {_TOP}V{frame.bottom}"/>')
        parts.append(f'<text x="{x}" y="{frame.bottom + 18}" text-anchor="middle">{value:g}</text>')
    for value in frame.vertical.ticks():
        y = frame.down(value)
        parts.append(f'<path class="grid" d="M{_LEFT} {y}H{frame.right}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{value:g}</text>')
    below = f'x="{(_LEFT + frame.right) / 2}" y="{frame.height - 8}"'
    beside = f'transform="translate(16 {(frame.bottom + _TOP) / 2}) rotate(-90)"'
    for where, title in ((below, frame.horizontal.title), (beside, frame.vertical.title)):
        parts.append(f'<text {where} text-anchor="middle">{escape(title)}</text>')
    return parts


def _draw_mark(mark: Mark, x: float, y: float, colour: str) -> str:
    label = escape(mark.label)
    circle = f'<circle cx="{x}" cy="{y}" r="{_RADIUS}" fill="{colour}"/><title>{label}</title>'
    if not mark.name:
        return f'<g role="img" aria-label="{label}">{circle}</g>'
    return (
        f'<g class="mark" role="button" tabindex="0" aria-label="{label}" '
        f'data-name="{escape(mark.name)}">{circle}</g>'
    )
