"""Heat maps of tables [layers][regions], side by side on one scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffcr.records.record import Record
from diffcr.report.figures.canvas import region_labels, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_compression(records: Mapping[str, Record], path: str | Path) -> None:
    """Realised compression ratios in per cent, a table per record under its title.

    Reads `results["compression"]["realised"]`, [layers][regions].
    """
    tables = [
        100 * np.asarray(record.results["compression"]["realised"], dtype=float)
        for record in records.values()
    ]
    titles = [
        f"{title} (mean {table.mean():.1f})" for title, table in zip(records, tables, strict=True)
    ]
    highest = max(50.0, *(table.max() for table in tables))
    scale = _Scale("cividis", highest, ".0f", "compression ratio, %")
    _plot_tables(dict(zip(titles, tables, strict=True)), scale, path)


def plot_router_auc(records: Mapping[str, Record], path: str | Path) -> None:
    """Areas under the ROC curve of router scores against object masks, a table per record, in
    diverging colours around chance, 0.5.

    Reads `results["router_auc"]["mean"]`, [layers][regions] in [0, 1].
    """
    tables = {
        title: np.asarray(record.results["router_auc"]["mean"], dtype=float)
        for title, record in records.items()
    }
    # Both ends are dark and chance is white, to readers with any colour vision.
    scale = _Scale("PuOr_r", 1.0, ".2f", "AUC: 0 background first, 1 objects first")
    _plot_tables(tables, scale, path)


@dataclass(frozen=True)
class _Scale:
    """How the values of heat maps are shown.

    Attributes:
        colours: Matplotlib's name of the colour map, from 0 to `highest`.
        highest: Value of the last colour.
        form: Format of the values that are printed.
        label: Of the colour bar.
    """

    colours: str
    highest: float
    form: str
    label: str


_TABLES_PER_ROW = 3
_WIDEST_TABLE = 6.0
# More than these run into each other, and are turned.
_LEVEL_LABELS = 6


def _plot_tables(tables: Mapping[str, Any], scale: _Scale, path: str | Path) -> None:
    columns = min(_TABLES_PER_ROW, len(tables))
    rows = -(-len(tables) // columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, squeeze=False)
        places = list(grid.flat)
        for axes, (title, table) in zip(places, tables.items(), strict=False):
            image = _draw_table(axes, table, scale)
            axes.set_title(title)
        for axes in places[len(tables) :]:
            axes.remove()
        for axes in grid[:, 0]:
            axes.set_ylabel("layer")
        figure.colorbar(image, ax=places[: len(tables)], label=scale.label)

    layers = max(len(table) for table in tables.values())
    widest = max(1.4 + 1.1 * table.shape[1] for table in tables.values())
    if rows > 1:
        widest = min(widest, _WIDEST_TABLE)
    write_figure(draw, path, 1.2 + columns * widest, rows * (1.6 + 0.34 * layers))


def _draw_table(axes: Axes, table: Any, scale: _Scale) -> Any:
    layers, regions = table.shape
    image = axes.imshow(table, cmap=scale.colours, vmin=0, vmax=scale.highest, aspect="auto")
    for layer in range(layers):
        for region in range(regions):
            value = table[layer, region]
            colour = "white" if np.dot(image.to_rgba(value)[:3], _LUMA) < _DARK else "black"
            text = format(value, scale.form)
            axes.text(region, layer, text, ha="center", va="center", color=colour)
    axes.set_xticks(range(regions), region_labels(regions))
    if regions > _LEVEL_LABELS:
        axes.tick_params(axis="x", rotation=90)
    axes.set_yticks(range(layers), [str(layer) for layer in range(layers)])
    axes.set_xlabel("timestep region (clean to noisy)")
    return image


_DARK = 0.52
_LUMA = (0.299, 0.587, 0.114)
