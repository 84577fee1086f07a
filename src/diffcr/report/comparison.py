"""Records of several methods beside each other: means and spread over the seeds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from diffcr.errors import DiffCRError
from diffcr.records.record import Record, read_record

Value = Callable[[Mapping[str, Any]], float]
_ROWS = "experiments"
_NAME = re.compile(r"(?P<row>.+)-seed-(?P<seed>\d+)")


@dataclass(frozen=True)
class Seeds:
    """One value per seed.

    Attributes:
        values: In the order of the seeds.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return mean(self.values)

    @property
    def spread(self) -> float:
        """Sample standard deviation over the seeds, 0 for one alone."""
        return stdev(self.values) if len(self.values) > 1 else 0.0

    def text(self, form: str, factor: float = 1.0) -> str:
        """Mean and spread."""
        centre = format(factor * self.mean, form)
        if len(self.values) == 1:
            return centre
        return f"{centre} ± {format(factor * self.spread, form)}"

    def differs_from(self, other: Seeds) -> bool:
        """Whether the means are further apart than either spread."""
        return abs(self.mean - other.mean) > max(self.spread, other.spread)


@dataclass(frozen=True)
class Row:
    """A method as it was trained, or attached, once per seed.

    Attributes:
        name: Of the row; its records are `NAME-seed-S.json`.
        records: In the order of the seeds.
    """

    name: str
    records: tuple[Record, ...]

    def over_seeds(self, value: Value) -> Seeds:
        """A value of the row's records."""
        return Seeds(tuple(value(record.results) for record in self.records))


@dataclass(frozen=True)
class Collection:
    """Records of a directory.

    Attributes:
        rows: Of the comparison, by name; from its subdirectory `experiments`, or from itself.
        others: All other records, by file name.
    """

    rows: Mapping[str, Row]
    others: Mapping[str, Record]


def read_collection(directory: Path) -> Collection:
    """Every record of a directory.

    Raises:
        DiffCRError: There is none, or one is damaged.
    """
    if not directory.is_dir():
        raise DiffCRError(f"{directory} is not a directory: give one that holds records")
    rows = directory / _ROWS if (directory / _ROWS).is_dir() else directory
    found = read_rows(rows)
    others = {
        path.stem: read_record(path)
        for path in sorted(directory.glob("*.json"))
        if not _NAME.fullmatch(path.stem)
    }
    if not found and not others:
        raise DiffCRError(f"{directory} holds no records: give a directory with some")
    return Collection(found, others)


def read_rows(directory: Path) -> dict[str, Row]:
    """Rows by name, of the records `NAME-seed-S.json` in a directory.

    Raises:
        DiffCRError: A record is damaged, or is of another kind.
    """
    found: dict[str, dict[int, Record]] = {}
    for path in sorted(directory.glob("*.json")):
        matched = _NAME.fullmatch(path.stem)
        if matched is None:
            continue
        record = read_record(path)
        if record.kind != "experiment":
            raise DiffCRError(f"{path} holds a record of kind {record.kind!r}, not an experiment")
        found.setdefault(matched["row"], {})[int(matched["seed"])] = record
    return {
        name: Row(name, tuple(record for _, record in sorted(records.items())))
        for name, records in found.items()
    }


def own(section: Mapping[str, Any]) -> Any:
    """What a section by model says of the model itself: "compressed" where a method is attached,
    else "dense"."""
    return section["compressed"] if "compressed" in section else section["dense"]


def held_out(results: Mapping[str, Any]) -> float:
    """Mean noise error over the timestep regions."""
    return float(own(results["held_out_loss"])["mean"])


def frechet(results: Mapping[str, Any]) -> float:
    """The judge's Frechet distance."""
    return float(own(results["quality"])["judge_frechet_distance"])


def accuracy(results: Mapping[str, Any]) -> float:
    """Caption accuracy, a share."""
    return float(own(results["quality"])["caption_accuracy"])


def skipped(results: Mapping[str, Any]) -> float:
    """Mean share of tokens that a sampling run skips under a method that routes or reuses them, 0
    of others."""
    if "compression" in results:
        return float(results["compression"]["realised_mean"])
    return float(results.get("flops", {}).get("skipped_mean", 0.0))


def flops(kind: str) -> Value:
    """Operations of a forward as a share of the dense model's, "total" or "linear"."""

    def share(results: Mapping[str, Any]) -> float:
        return float(own(results["flops"])[kind] / results["flops"]["dense"][kind])

    return share


QUALITY_HEADER = (
    "model",
    "seeds",
    "tokens skipped, %",
    "FLOPs, total (linear), %",
    "held-out error per region",
    "mean",
    "caption accuracy, %",
    "judge's Frechet distance",
)


def quality_rows(rows: Mapping[str, Row], titles: Mapping[str, str]) -> list[list[str]]:
    """A line per row that was measured: cost, then quality.

    Args:
        rows: By name.
        titles: Names of the rows to show, in order, with what to call them.
    """
    return [_quality_row(rows[name], title) for name, title in titles.items() if name in rows]


def _quality_row(row: Row, title: str) -> list[str]:
    total, linear = (100 * row.over_seeds(flops(kind)).mean for kind in ("total", "linear"))
    results = [record.results for record in row.records]
    routed = all("compression" in found for found in results)
    errors = ["-", "-"]
    # With fewer denoising steps it is nobody's own.
    if all("held_out_loss" in found for found in results):
        regions = zip(*(own(found["held_out_loss"])["noise"] for found in results), strict=True)
        errors = [
            " / ".join(f"{mean(values):.4f}" for values in regions),
            row.over_seeds(held_out).text(".5f"),
        ]
    return [
        title,
        str(len(row.records)),
        row.over_seeds(skipped).text(".1f", 100) if routed else "-",
        f"{total:.1f} ({linear:.1f})",
        *errors,
        row.over_seeds(accuracy).text(".1f", 100),
        row.over_seeds(frechet).text(".0f"),
    ]
