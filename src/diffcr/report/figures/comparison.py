"""Figures of several records: methods and seeds beside each other."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from diffcr.report.figures.canvas import (
    LINE_STYLES,
    PALETTE,
    ROW_COLOURS,
    ROW_MARKERS,
    Measured,
    percent,
    region_labels,
    write_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_compression_tables(records: Mapping[str, Measured], path: str | Path) -> None:
    """Heat maps as `plot_compression`'s side by side, on one scale, under their titles."""
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


def plot_router_auc_tables(records: Mapping[str, Measured], path: str | Path) -> None:
    """Heat maps as `plot_router_auc`'s side by side, on one scale, under their titles."""
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


def plot_trajectories(records: Sequence[Measured], path: str | Path) -> None:
    """Mean compression ratio over the steps of training, of all layers and per region, with a line
    per record.

    Reads `results["trajectory"]`: "step" [n], "mean" [n], "per_region" [regions][n] (may be
    empty), "target"; regions and target are the same in all records.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for record in records:
            values = record.results["trajectory"]
            labelled = record is records[0]
            regions = values.get("per_region") or []
            labels = region_labels(len(regions)) if regions else []
            for region, line in enumerate(regions if len(regions) > 1 else []):
                axes.plot(
                    values["step"],
                    percent(line),
                    color=PALETTE[region % len(PALETTE)],
                    ls=LINE_STYLES[region % len(LINE_STYLES)],
                    lw=1.2,
                    label=f"t {labels[region]}" if labelled else None,
                )
            label = "mean" if labelled else None
            axes.plot(values["step"], percent(values["mean"]), color="black", lw=2, label=label)
        target = 100 * values["target"]
        axes.axhline(target, color="grey", ls="--", lw=1, label=f"target {target:.0f} %")
        axes.set_xlabel("training step")
        axes.set_ylabel("learned compression ratio, %")
        axes.set_ylim(bottom=0)
        axes.margins(x=0.01)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, ncols=2, fontsize=9)
        axes.set_title("Compression ratio during training")

    write_figure(draw, path, 6.4, 4.0)


def plot_loss_against_ratio(records: Mapping[str, Sequence[Measured]], path: str | Path) -> None:
    """Held-out loss against the realised mean ratio, by method, a line per seed.

    A line runs over `results["by_products"]` to the trained model; without them it is one mark,
    at ratio 0 without compression.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, (name, seeds) in enumerate(records.items()):
            for seed, record in enumerate(seeds):
                stages = [
                    *map(_stage, record.results.get("by_products", [])),
                    _stage(record.results),
                ]
                axes.plot(
                    [100 * stage.ratio for stage in stages],
                    [stage.loss for stage in stages],
                    color=ROW_COLOURS[place % len(ROW_COLOURS)],
                    marker=ROW_MARKERS[place % len(ROW_MARKERS)],
                    ls=LINE_STYLES[place % len(LINE_STYLES)],
                    ms=4,
                    lw=1.1,
                    label=name if seed == 0 else None,
                )
        axes.set_xlabel("realised mean compression ratio, %")
        axes.set_ylabel("held-out noise error")
        axes.grid(alpha=0.25)
        axes.set_title("Held-out error on the way to the target")
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)

    write_figure(draw, path, 6.4, 4.8)


@dataclass(frozen=True)
class _Stage:
    """A checkpoint: its realised mean ratio and its held-out error."""

    ratio: float
    loss: float


def _stage(values: Mapping[str, Any]) -> _Stage:
    compression = values.get("compression", {"realised_mean": 0.0})
    return _Stage(compression["realised_mean"], values["held_out_loss"]["mean"])


def plot_sheets(sheets: Mapping[str, Path], captions: Sequence[str], path: str | Path) -> None:
    """Rows of pictures of the same captions and seeds, a row per method.

    Args:
        sheets: By method, a sheet of pictures whose first row is shown.
        captions: Of the columns; as many as a sheet has pictures in a row.
        path: PNG.
    """
    columns = len(captions)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(sheets), columns, squeeze=False)
        for row, (name, sheet) in zip(grid, sheets.items(), strict=True):
            with Image.open(sheet) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            side = pixels.shape[1] // columns
            for place, axes in enumerate(row):
                axes.imshow(pixels[:side, place * side : (place + 1) * side])
                axes.set_xticks([])
                axes.set_yticks([])
                axes.set_frame_on(False)
            row[0].set_ylabel("\n".join(textwrap.wrap(name, 16)), fontsize=9)
        for axes, caption in zip(grid[-1], captions, strict=True):
            text = "\n".join(textwrap.wrap(caption, 21, max_lines=6, placeholder=" ..."))
            axes.set_xlabel(text, fontsize=7, loc="left")

    write_figure(draw, path, 1.35 * columns + 0.5, 1.35 * len(sheets) + 1.0)
