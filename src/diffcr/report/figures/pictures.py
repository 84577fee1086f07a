"""Figures of pictures: maps of what routers keep, and what models paint."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from diffcr.records.record import Record
from diffcr.report.figures.canvas import PALETTE, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LARGEST_LAYERS = 4


def plot_router_maps(record: Record, path: str | Path) -> None:
    """Columns are denoising steps beside the object mask; rows the share of layers that compute a
    token, then the scores of single layers.

    Reads `results["router_maps"]`: "timesteps" [S], "scores" and "kept" [S][L][h][w], "mask"
    [H][W] or None, "caption".
    """
    values = record.results["router_maps"]
    scores = np.asarray(values["scores"], dtype=float)
    kept = np.asarray(values["kept"], dtype=float)
    steps, layers = scores.shape[:2]
    shown = _spread(layers, _LARGEST_LAYERS)
    mask = values.get("mask")

    first = int(mask is not None)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1 + len(shown), first + steps, squeeze=False)
        for cell in axes.flat:
            cell.set_xticks([])
            cell.set_yticks([])
        if mask is not None:
            axes[0, 0].imshow(np.asarray(mask), cmap="gray", vmin=0, vmax=1)
            axes[0, 0].set_title("object mask", fontsize=9)
            for cell in axes[1:, 0]:
                cell.set_axis_off()
        for step in range(steps):
            axes[0, first + step].set_title(f"t = {values['timesteps'][step]:.0f}", fontsize=9)
        _draw_row(figure, axes[0, first:], kept.mean(axis=1), "layers that\ncompute it", (0, 1))
        for row, layer in enumerate(shown, start=1):
            maps = scores[:, layer]
            label = f"router score\nlayer {layer}"
            # Single tokens with extreme scores would leave the others in one colour.
            limits = (float(np.percentile(maps, 1)), float(np.percentile(maps, 99)))
            _draw_row(figure, axes[row, first:], maps, label, limits)
        if mask is not None:
            for cell in axes[:, first:].flat:
                _outline(cell, np.asarray(mask), scores.shape[2:])
        figure.suptitle("\n".join(textwrap.wrap(values["caption"], 80)), fontsize=10)

    write_figure(draw, path, 1.6 * (first + steps) + 1.4, 1.6 * (1 + len(shown)) + 0.6)


def _outline(axes: Axes, mask: Any, shape: tuple[int, ...]) -> None:
    """The mask's edge over a map of `shape` tokens."""
    height, width = shape
    if mask.min() == mask.max():
        return
    rows = (np.arange(mask.shape[0]) + 0.5) * height / mask.shape[0] - 0.5
    columns = (np.arange(mask.shape[1]) + 0.5) * width / mask.shape[1] - 0.5
    axes.contour(columns, rows, mask, levels=[0.5], colors=PALETTE[5], linewidths=1.2)


def _draw_row(
    figure: Figure, axes: Any, maps: Any, label: str, limits: tuple[float, float]
) -> None:
    low, high = limits
    for cell, single in zip(axes, maps, strict=True):
        # A layer whose router says the same of every token is drawn flat, not as noise.
        top = high if high > low else low + 1e-3
        image = cell.imshow(single, cmap="cividis", vmin=low, vmax=top)
    axes[0].set_ylabel(label, fontsize=9)
    bar = figure.colorbar(image, ax=list(axes), fraction=0.02, pad=0.01)
    bar.ax.tick_params(labelsize=7)


def _spread(count: int, most: int) -> list[int]:
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})


def plot_images(record: Record, directory: str | Path, path: str | Path, most: int = 8) -> None:
    """Pictures of the same prompts and seeds side by side, with their captions.

    Reads `results["images"]`: "prompts" and, by name, lists of paths relative to `directory`.
    """
    images: Mapping[str, Any] = record.results["images"]
    prompts = images["prompts"][:most]
    names = [name for name in images if name != "prompts"]
    per_row = 2 if len(prompts) > 1 else 1
    rows = -(-len(prompts) // per_row)

    def draw(figure: Figure) -> None:
        for place, prompt in enumerate(prompts):
            row, column = divmod(place, per_row)
            for offset, name in enumerate(names):
                at = row * per_row * len(names) + column * len(names) + offset + 1
                axes: Axes = figure.add_subplot(rows, per_row * len(names), at)
                with Image.open(Path(directory) / images[name][place]) as picture:
                    axes.imshow(np.asarray(picture.convert("RGB")), interpolation="nearest")
                axes.set_xticks([])
                axes.set_yticks([])
                axes.set_title(name, fontsize=9)
                if offset == 0:
                    caption = "\n".join(
                        textwrap.wrap(prompt, 22 * len(names), max_lines=4, placeholder=" ...")
                    )
                    axes.set_xlabel(caption, fontsize=8, loc="left")

    write_figure(draw, path, 2.0 * per_row * len(names), 2.75 * rows)


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
