"""Labels of points, each beside its own and clear of what else is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

# In pixels at the figure's resolution.
_MARK = 7
_LINE_STEP = 3
# A label may stand farther off where there is no room beside its point.
_DISTANCES = (1.0, 1.7, 2.6)
# A label over another or over a mark cannot be read; nearer to another point it is read as that
# one's; over a line it is neither.
_COVERED = 100
_MISLEADING = 30


@dataclass(frozen=True)
class PointLabel:
    """A label of a point.

    Attributes:
        text: Of one line.
        point: That it stands beside, in the axes' units.
        colour: Of its letters.
        size: Of its letters, in typographic points.
    """

    text: str
    point: tuple[float, float]
    colour: str
    size: float


def write_labels(axes: Axes, labels: Sequence[PointLabel]) -> None:
    """Write labels, the first ones where they like best.

    Args:
        axes: With all lines drawn, in a figure that was laid out.
        labels: Of points on these lines.
    """
    from matplotlib.transforms import Bbox

    drawn = _drawn_points(axes)
    points = _marked_points(axes)
    taken = [Bbox.from_bounds(x - _MARK, y - _MARK, 2 * _MARK, 2 * _MARK) for x, y in points]
    for label in labels:
        text = axes.text(
            *label.point, label.text, size=label.size, color=label.colour, ha="center", va="center"
        )
        text.set_in_layout(False)
        own = axes.transData.transform(label.point)
        costs = {
            place: rank + _cost(place, axes.bbox, taken, drawn) + _misleads(place, own, points)
            for rank, place in enumerate(_places(text.get_window_extent()))
        }
        place = min(costs, key=costs.__getitem__)
        x, y = axes.transData.inverted().transform(_middle(place))
        text.set_position((x, y))
        taken.append(place)


def _places(box: Bbox) -> Iterator[Bbox]:
    """Where the label of a box in the middle of its point may stand, the best places first."""
    for distance, across, up in product(_DISTANCES, (1, 0, -1), (1, -1, 0)):
        if across or up:
            # Corners are nearer than sides, for the eye.
            right = across * (box.width / 2 + _MARK * distance * (0.6 if up else 1.4))
            yield box.translated(right, up * (box.height / 2 + _MARK * distance))


def _cost(place: Bbox, inside: Bbox, taken: Sequence[Bbox], drawn: NDArray[np.float64]) -> int:
    """How much a label would cover at a place."""
    outside = inside.count_contains(place.corners()) < len(place.corners())
    return _COVERED * (place.count_overlaps(taken) + outside) + place.count_contains(drawn)


def _misleads(place: Bbox, own: NDArray[np.float64], points: NDArray[np.float64]) -> int:
    """The cost of a place that is nearer to another point than to the label's own."""
    far = np.hypot(*(points - _middle(place)).T)
    return _MISLEADING * bool(np.hypot(*(own - _middle(place))) > far.min() + 1)


def _middle(box: Bbox) -> tuple[float, float]:
    return (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2


def _marked_points(axes: Axes) -> NDArray[np.float64]:
    """Points with a mark, in pixels, [P, 2]; the caps of error bars are none."""
    marked = [line for line in axes.lines if line.get_marker() not in ("None", "_", "|")]
    return np.concatenate([axes.transData.transform(line.get_xydata()) for line in marked])


def _drawn_points(axes: Axes) -> NDArray[np.float64]:
    """Points along all lines and error bars of the axes, in pixels, [P, 2]."""
    from matplotlib.collections import LineCollection

    segments = [axes.transData.transform(line.get_xydata()) for line in axes.lines]
    for bars in (each for each in axes.collections if isinstance(each, LineCollection)):
        segments += [axes.transData.transform(segment) for segment in bars.get_segments()]
    ends = [(a, b) for path in segments for a, b in zip(path[:-1], path[1:], strict=True)]
    steps = [max(2, int(np.hypot(*(b - a)) // _LINE_STEP)) for a, b in ends]
    return np.concatenate(
        [np.linspace(a, b, count) for (a, b), count in zip(ends, steps, strict=True)]
    )
