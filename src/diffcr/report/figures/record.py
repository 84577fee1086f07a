"""Every figure of one record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffcr.records.record import Record
from diffcr.report.figures.curves import plot_trajectories
from diffcr.report.figures.heat_maps import plot_compression, plot_router_auc
from diffcr.report.figures.pictures import plot_images, plot_router_maps


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
    skipped = {"Tokens that bypass a layer, %": record}
    scenes = results.get("router_auc", {}).get("scenes")
    detected = {f"Router scores against object masks, {scenes} scenes": record}
    figures = {
        "compression": (
            "Compression per layer and timestep region",
            lambda path: plot_compression(skipped, path),
        ),
        "trajectory": (
            "Compression ratio during training",
            lambda path: plot_trajectories([record], path),
        ),
        "router_maps": (
            "Where the layers compute, over the denoising steps",
            lambda path: plot_router_maps(record, path),
        ),
        "router_auc": (
            "Which routers look at objects, which at background",
            lambda path: plot_router_auc(detected, path),
        ),
        "images": (
            "The same prompts and seeds, dense and compressed",
            lambda path: plot_images(record, folder, path),
        ),
    }
    written = []
    for name, (title, plot) in figures.items():
        if results.get(name):
            written.append(FigureFile(folder / "figures" / f"{name}.png", title))
            plot(written[-1].path)
    return written
