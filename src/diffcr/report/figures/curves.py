"""Curves of trainings: losses, ratios, and one against the other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffcr.records.record import Record
from diffcr.report.comparison import held_out, skipped
from diffcr.report.figures.canvas import (
    GREY,
    LINE_STYLES,
    PALETTE,
    percent,
    region_labels,
    row_style,
    write_figure,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_losses(losses: Sequence[float], steps: int, path: str | Path) -> None:
    """Training loss, means over equal parts of a run of `steps` steps."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        width = steps / len(losses)
        middles = [width * (part + 0.5) for part in range(len(losses))]
        axes.plot(middles, losses, color=PALETTE[0], marker="o", ms=3, lw=1.2)
        axes.set_yscale("log")
        axes.set_xlabel("training step")
        axes.set_ylabel("weighted diffusion loss")
        axes.grid(alpha=0.25, which="both")
        axes.set_title("Pretraining")

    write_figure(draw, path, 6.4, 3.4)


def plot_trajectories(records: Sequence[Record], path: str | Path) -> None:
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


def plot_loss_against_ratio(
    records: Mapping[str, Sequence[Record]], path: str | Path, grey: Collection[str] = ()
) -> None:
    """Held-out loss against the realised mean ratio, by method, a line per seed.

    A line runs over `results["by_products"]` to the trained model; without them it is one mark,
    at ratio 0 without compression.

    Args:
        records: By the methods' names, six of them at most to be told apart.
        path: PNG.
        grey: Methods that are drawn in grey.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, (name, seeds) in enumerate(records.items()):
            for seed, record in enumerate(seeds):
                stages = [*record.results.get("by_products", []), record.results]
                style = row_style(place)
                if name in grey:
                    style["color"] = GREY
                axes.plot(
                    percent([skipped(stage) for stage in stages]),
                    [held_out(stage) for stage in stages],
                    **style,
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
