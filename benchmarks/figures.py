"""Figures of `docs/images/`, from the committed records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import inpainting_tables
from claim import CLAIMED, FINISHED, METHODS, RESULTS, SHOWN, SLOW, rows
from PIL import Image
from reuse_tables import DISTILLED
from rows import DISTILLED_SHEETS, MAPPED, TRAINED_SHEETS, UNTRAINED_SHEETS

from diffcr.files import replacing_file
from diffcr.records.record import Record, read_record
from diffcr.report.comparison import Row, read_collection
from diffcr.report.figures.curves import plot_loss_against_ratio, plot_losses, plot_trajectories
from diffcr.report.figures.heat_maps import plot_compression, plot_router_auc
from diffcr.report.figures.pictures import plot_router_maps, plot_sheets
from diffcr.report.figures.trade_off import (
    FEWER_STEPS,
    MOST_SERIES,
    SERIES,
    plot_trade_offs,
    trade_offs,
)
from diffcr.scenes import ScenesDataset

_COLUMNS = 8
_FRONTIER = tuple(SERIES)[:MOST_SERIES]
_COMPARED = (FEWER_STEPS, "pruning", "diffcr-lt", "mod", "tome", "at-edm")


def draw_figures(folder: Path) -> None:
    """Every figure but the pictures of the pretrained pipeline."""
    pretraining = read_record(RESULTS / "pretraining.json").results["training"]["transformer"]
    plot_losses(
        pretraining["losses"], pretraining["recipe"]["steps"], folder / "pretraining_loss.png"
    )
    measured = rows()
    learned = measured[MAPPED.name].records
    tables = {f"seed {seed}": record for seed, record in enumerate(learned)}
    plot_compression(tables, folder / "compression.png")
    plot_trajectories(learned, folder / "trajectory.png")
    plot_router_maps(learned[MAPPED.seed], folder / "router_maps.png")
    plot_router_auc(tables, folder / "router_auc.png")
    ways = _ways(measured)
    grey = ("uniform (MoD)", "DiffCR-LT on a slow way to 50 %", "checkpoints of that run, finished")
    plot_loss_against_ratio(ways, folder / "loss_against_ratio.png", grey)
    collection = read_collection(RESULTS)
    compared = trade_offs(collection, "methods-embedded-second-run")
    plot_trade_offs(compared, folder / "trade_off.png", _titles(_COMPARED))
    frontier, _ = trade_offs(collection, "frontier-embedded")
    plot_trade_offs([frontier], folder / "frontier.png", _titles(_FRONTIER))
    _draw_sheets(folder)
    for picture in sorted(folder.glob("*.png")):
        reduce_colours(picture)


def _titles(series: Sequence[str]) -> dict[str, str]:
    return {name: SERIES[name] for name in series}


def _ways(measured: Mapping[str, Row]) -> dict[str, tuple[Record, ...]]:
    """Records whose held-out error is drawn against their ratio, by the names in the figure."""
    by_title = {
        CLAIMED["dense"]: ("dense",),
        "uniform (MoD)": ("mod-20", "mod-30"),
        CLAIMED["diffcr-l-30"]: ("diffcr-l-30",),
        "DiffCR-LT": ("diffcr-lt-20", "diffcr-lt-30"),
        "DiffCR-LT on a slow way to 50 %": (SLOW,),
        "checkpoints of that run, finished": tuple(FINISHED),
    }
    return {
        title: tuple(record for name in names for record in measured[name].records)
        for title, names in by_title.items()
    }


def _draw_sheets(folder: Path) -> None:
    captions = [scene.caption for scene in ScenesDataset("test", size=_COLUMNS)]
    for runs, titles, name in (
        (TRAINED_SHEETS, METHODS, "images"),
        (UNTRAINED_SHEETS, SHOWN, "reuse"),
        (DISTILLED_SHEETS, DISTILLED, "distilled"),
    ):
        sheets = {titles[run.name]: run.record.with_suffix(".png") for run in runs}
        plot_sheets(sheets, captions, folder / f"{name}.png")
    inpainted = {
        title: RESULTS / "inpainting" / f"{name}-seed-0.png"
        for name, title in inpainting_tables.TITLES.items()
    }
    inpainted = {"given": RESULTS / "inpainting" / "given.png", **inpainted}
    plot_sheets(inpainted, captions, folder / "inpainting.png")


def reduce_colours(picture: Path) -> None:
    """Give a PNG a palette of 256 colours, in place: a fifth of its size."""
    with Image.open(picture) as opened:
        if opened.mode == "P":
            return
        pixels = opened.convert("RGB")
    reduced = pixels.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=1)
    with replacing_file(picture) as temporary:
        reduced.save(temporary, format="PNG", optimize=True)
