"""The figures in `docs/images/`, from the committed records: `python benchmarks/figures.py`."""

from __future__ import annotations

from pathlib import Path

from claim import AT_20, CLAIMED, FINISHED, METHODS, RESULTS, SLOW, rows
from inpainting_tables import TITLES

from diffcr.records.record import read_record
from diffcr.report.figures.comparison import (
    plot_compression_tables,
    plot_loss_against_ratio,
    plot_router_auc_tables,
    plot_sheets,
    plot_trajectories,
)
from diffcr.report.figures.evaluation import plot_losses, plot_router_maps
from diffcr.report.figures.trade_off import plot_trade_offs
from diffcr.report.overview import read_collection, trade_offs
from diffcr.scenes import ScenesDataset

IMAGES = Path(__file__).parents[1] / "docs" / "images"
DRAWN = "diffcr-lt-30"
_COLUMNS = 8


def _plot_inpainting(captions: list[str]) -> None:
    sheets = {"given": RESULTS / "inpainting" / "given.png"}
    for name, title in TITLES.items():
        path = RESULTS / "inpainting" / f"{name}-seed-0.png"
        if path.exists():
            sheets[title] = path
    if len(sheets) > 1:
        plot_sheets(sheets, captions, IMAGES / "inpainting.png")


def main() -> None:
    """Draw them all."""
    pretraining = read_record(RESULTS / "pretraining.json").results["training"]["transformer"]
    steps = pretraining["recipe"]["steps"]
    plot_losses(pretraining["losses"], steps, IMAGES / "pretraining_loss.png")
    measured = rows()
    seeds = measured[DRAWN].records
    tables = {f"seed {seed}": record for seed, record in enumerate(seeds)}
    plot_compression_tables(tables, IMAGES / "compression.png")
    plot_trajectories(seeds, IMAGES / "trajectory.png")
    plot_router_maps(seeds[0], IMAGES / "router_maps.png")
    scored = {t: record for t, record in tables.items() if "router_auc" in record.results}
    if scored:
        plot_router_auc_tables(scored, IMAGES / "router_auc.png")
    # Pruning skips no tokens: it has no place on an axis of their share.
    shown = {**CLAIMED, **AT_20, SLOW: "DiffCR-LT on a slow way to 50 %"}
    # It skips no tokens and has no place on an axis of their share.
    del shown["pruning-20"]
    ways = {title: measured[name].records for name, title in shown.items() if name in measured}
    finished = [
        record for name in FINISHED if name in measured for record in measured[name].records
    ]
    ways |= {"checkpoints of that run, finished": finished} if finished else {}
    plot_loss_against_ratio(ways, IMAGES / "loss_against_ratio.png")
    test = ScenesDataset("test", size=_COLUMNS)
    captions = [test[i].caption for i in range(_COLUMNS)]
    sheets_of = ("dense", "mod-30", "diffcr-l-30", DRAWN)
    found = {METHODS[n]: RESULTS / "experiments" / f"{n}-seed-0.png" for n in sheets_of}
    sheets = {title: path for title, path in found.items() if path.exists()}
    plot_sheets(sheets, captions, IMAGES / "images.png")
    _plot_inpainting(captions)
    plot_trade_offs(trade_offs(read_collection(RESULTS)), IMAGES / "trade_off.png")


if __name__ == "__main__":
    main()
