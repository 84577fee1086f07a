"""What the records of token reuse say, as tables.

A table is its header and its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from pathlib import Path
from typing import Any

from claim import RESULTS, exact, rows
from inpainting_tables import Table

from diffcr.records.record import read_record
from diffcr.report.comparison import Row, accuracy, frechet, own, skipped

STEPS = {
    "dense-20-steps": "20 steps",
    "reuse-30-calibrated": "20 steps, 30 % reused, calibrated",
    "reuse-30-steps": "20 steps, 30 % reused, settings of the default",
    "dense-14-steps": "14 steps",
    "reuse-50-calibrated": "20 steps, 50 % reused, calibrated",
    "reuse-50-steps": "20 steps, 50 % reused, settings of the default",
    "reuse-30-calibrated-at-14-steps": "14 steps, 30 % reused, calibrated",
    "dense-10-steps": "10 steps",
    "reuse-65-steps": "20 steps, 65 % reused, settings of the default",
    "reuse-30-calibrated-at-10-steps": "10 steps, 30 % reused, calibrated",
    "dense-8-steps": "8 steps",
    "reuse-30-calibrated-at-8-steps": "8 steps, 30 % reused, calibrated",
}
DIAL = {
    "dial-dense": "dense",
    "dial-10": "calibrated for 10 %",
    "dial-50-at-10": "calibrated for 50 %, set to 10 %",
    "dial-20": "calibrated for 20 %",
    "dial-50-at-20": "calibrated for 50 %, set to 20 %",
    "dial-30": "calibrated for 30 %",
    "dial-50-at-30": "calibrated for 50 %, set to 30 %",
    "dial-40": "calibrated for 40 %",
    "dial-50-at-40": "calibrated for 50 %, set to 40 %",
    "dial-50-at-50": "calibrated for 50 %, set to 50 %",
    "dial-50": "calibrated for 50 %, as it is",
}
DISTILLED = {
    "dense-20-steps": "dense, 20 steps",
    "reuse-50-calibrated": "20 steps, 10 computed, calibrated",
    "dial-50": "20 steps, 10 computed, calibrated, 500 images",
    "distilled-50": "20 steps, 10 computed, distilled for 3 to 5, 500 images",
    "reuse-80-calibrated": "20 steps, 4 computed, calibrated",
    "distilled-80": "20 steps, 4 computed, distilled",
    "distilled-85": "20 steps, 3 computed, distilled",
    "dense-8-steps": "8 dense steps",
    "dense-6-steps": "6 dense steps",
}
_DISTILLED_HEADER = (
    "2000 images a seed if not said",
    "seeds",
    "tokens computed, % of dense",
    "caption accuracy, %",
    "all right, %",
    "judge's Frechet distance",
)
_STEPS_HEADER = (
    "denoising steps",
    "of which are computed",
    "images",
    "caption accuracy, %",
    "its standard error",
    "all right, %",
    "judge's Frechet distance",
)
_DIAL_HEADER = (
    "500 images a seed",
    "seeds",
    "computed of 20 steps",
    "caption accuracy, %",
    "its standard error",
    "judge's Frechet distance",
)
_DENSE_STEPS = 20
INPAINTING = {"lazy": "uncompressed", "reuse-50": "half of the steps reused"}
_INPAINTING_HEADER = (
    "inpainting",
    "denoising steps",
    "caption accuracy, %",
    "PSNR under the mask, dB",
)


def standard_error(results: Mapping[str, Any]) -> float:
    """Of the caption accuracy over images, as if an image's attributes were independent."""
    quality = own(results["quality"])
    shares = quality["caption_accuracy_per_attribute"].values()
    return sqrt(sum(p * (1 - p) for p in shares) / quality["images"]) / len(shares)


def _computed(row: Row) -> str:
    """Steps of a sampling run that run the blocks."""
    steps = row.records[0].configuration["num_inference_steps"]
    return f"{steps * (1 - row.over_seeds(skipped).mean):.0f}"


def steps_table() -> Table:
    """Fewer denoising steps and reused ones, the most computed steps first."""
    measured = rows()
    lines = [
        [
            title,
            _computed(measured[name]),
            str(measured[name].records[0].configuration["images"]),
            measured[name].over_seeds(accuracy).text(".1f", 100),
            f"{100 * measured[name].over_seeds(standard_error).mean:.2f}",
            measured[name].over_seeds(exact).text(".0f", 100),
            measured[name].over_seeds(frechet).text(".0f"),
        ]
        for name, title in STEPS.items()
        if name in measured
    ]
    return _STEPS_HEADER, lines


def distilled_table() -> Table:
    """Reuse at few computed steps, distilled and not, beside fewer dense steps."""
    measured = rows()
    lines = [
        [
            title,
            str(len(row.records)),
            f"{_share_computed(row):.0f}",
            row.over_seeds(accuracy).text(".1f", 100),
            row.over_seeds(exact).text(".0f", 100),
            row.over_seeds(frechet).text(".0f"),
        ]
        for name, title in DISTILLED.items()
        if (row := measured.get(name))
    ]
    return _DISTILLED_HEADER, lines


def _share_computed(row: Row) -> float:
    """Of the tokens of 20 dense steps, those of a sampling run, in %."""
    steps = row.records[0].configuration["num_inference_steps"]
    return 100 * steps / _DENSE_STEPS * (1 - row.over_seeds(skipped).mean)


def dial_table() -> Table:
    """One checkpoint at several budgets, and those that were calibrated for theirs."""
    measured = rows()
    lines = [
        [
            title,
            str(len(measured[name].records)),
            _computed(measured[name]),
            measured[name].over_seeds(accuracy).text(".1f", 100),
            f"{100 * measured[name].over_seeds(standard_error).mean:.2f}",
            measured[name].over_seeds(frechet).text(".0f"),
        ]
        for name, title in DIAL.items()
        if name in measured
    ]
    return _DIAL_HEADER, lines


def inpainting_table() -> Table:
    """Inpainting with and without reuse by denoising steps."""
    lines = [
        [title, str(steps), *cells]
        for steps in (10, 20, 50, 100)
        for name, title in INPAINTING.items()
        if (cells := _inpainted(RESULTS / "inpainting" / f"{name}-{steps}-steps-seed-0.json"))
    ]
    return _INPAINTING_HEADER, lines


def _inpainted(path: Path) -> list[str]:
    if not path.exists():
        return []
    scenes = read_record(path).results["scenes"]
    return [f"{100 * scenes['caption_accuracy']:.1f}", f"{scenes['psnr_under_mask']:.1f}"]


TABLES: dict[str, Callable[[], Table]] = {
    "reuse steps": steps_table,
    "reuse dial": dial_table,
    "distilled": distilled_table,
    "reuse inpainting": inpainting_table,
}
