"""What all figures share: colours, labels, and a way to write them whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffcr.core.regions import region_timesteps
from diffcr.files import replacing_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette, safe for colour-blind readers.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
# Of what others are better than.
GREY = "#7a7a7a"
# So that curves stay apart in greyscale.
LINE_STYLES = ("-", "--", "-.", ":")
# Of compared rows: yellow marks are lost on white, and there are more rows than the palette
# has colours; the others are Paul Tol's "muted".
_MORE_COLOURS = ("#882255", "#999933", "#332288", "#44AA99", "#661100")
_ROW_COLOURS = (*(colour for colour in PALETTE if colour != "#F0E442"), *_MORE_COLOURS)
_ROW_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DPI = 150


def row_style(place: int) -> dict[str, Any]:
    """How matplotlib draws compared row number `place`: colour, marker, line."""
    return {
        "color": _ROW_COLOURS[place % len(_ROW_COLOURS)],
        "marker": _ROW_MARKERS[place % len(_ROW_MARKERS)],
        "ls": LINE_STYLES[place % len(LINE_STYLES)],
    }


def region_labels(regions: int) -> list[str]:
    """Timesteps of every region, clean to noisy."""
    if regions == 1:
        return ["all"]
    ranges = [region_timesteps(region, regions) for region in range(regions)]
    return [f"{within.start} to {within.stop - 1}" for within in ranges]


def percent(values: Sequence[float]) -> list[float]:
    """Shares as per cent."""
    return [100 * value for value in values]


def write_figure(
    draw: Callable[[Figure], None], path: str | Path, width: float, height: float
) -> None:
    """Draw into a figure of this size in inches; the file appears complete or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    with replacing_file(Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI)
