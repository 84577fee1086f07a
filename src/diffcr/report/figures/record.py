"""Every figure of one record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diffcr.records.record import Record
from diffcr.report.figures.curves import plot_trajectories
from diffcr.report.figures.heat_maps import plot_compression, plot_router_auc
from diffcr.report.figures.pictures import plot_images, plot_router_maps

_TITLES = {
    "compression": "Compression per layer and timestep region",
    "trajectory": "Compression ratio during training",
    "router_maps": "Where the layers compute, over the denoising steps",
    "router_auc": "Which routers look at objects, which at background",
    "images": "The same prompts and seeds, dense and compressed",
}


@dataclass(frozen=True)
class FigureFile:
    """A figure that was written.

    Attributes:
        path: PNG.
        title: What it shows, for a heading and an alternative text.
    """

    path: Path
    title: str


def plot_all(record: Record, directory: str | Path) -> list[FigureFile]:
    """Every figure that the record has data for, into `directory/figures`.

    Args:
        record: Of an evaluation or a demo.
        directory: Where the record's picture paths start.
    """
    folder, results = Path(directory), record.results
    scenes = results.get("router_auc", {}).get("scenes")
    detected = f"Router scores against object masks, {scenes} scenes"
    plots: dict[str, Callable[[Path], None]] = {
        "compression": lambda to: plot_compression({"Tokens that bypass a layer, %": record}, to),
        "trajectory": lambda to: plot_trajectories([record], to),
        "router_maps": lambda to: plot_router_maps(record, to),
        "router_auc": lambda to: plot_router_auc({detected: record}, to),
        "images": lambda to: plot_images(record, folder, to),
    }
    written = []
    for name, title in _TITLES.items():
        if results.get(name):
            written.append(FigureFile(folder / "figures" / f"{name}.png", title))
            plots[name](written[-1].path)
    return written
