"""What the experiments' records say of the claim, as tables: means and spread over the seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from diffcr.evaluation.records import Record, read_record

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1, 2)
METHODS = {
    "dense": "dense, continued",
    "mod-30": "uniform 30 % (MoD)",
    "diffcr-l-30": "DiffCR-L",
    "diffcr-lt-30-both": "DiffCR-LT, both branches",
    "diffcr-lt-30": "DiffCR-LT, sampled branches",
}


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


def experiments(name: str) -> list[Record]:
    """A row's records, one per seed that was run."""
    files = [RESULTS / "experiments" / f"{name}-seed-{seed}.json" for seed in SEEDS]
    return [read_record(file) for file in files if file.exists()]


def over_seeds(name: str, value: Callable[[Mapping[str, Any]], float]) -> Seeds:
    """A value of a row's records."""
    return Seeds(tuple(value(record.results) for record in experiments(name)))


def held_out(results: Mapping[str, Any]) -> float:
    """Mean noise error over the timestep regions."""
    return float(results["held_out_loss"]["mean"])


def frechet(results: Mapping[str, Any]) -> float:
    """The judge's Frechet distance."""
    return float(results["quality"]["judge_frechet_distance"])


def accuracy(results: Mapping[str, Any]) -> float:
    """Caption accuracy, a share."""
    return float(results["quality"]["caption_accuracy"])


def skipped(results: Mapping[str, Any]) -> float:
    """Realised mean compression ratio."""
    return float(results.get("compression", {"realised_mean": 0.0})["realised_mean"])


def flops(kind: str) -> Callable[[Mapping[str, Any]], float]:
    """Operations as a share of the dense model's, "total" or "linear"."""

    def share(results: Mapping[str, Any]) -> float:
        counts = results["flops"]
        compressed = counts.get("compressed", counts["dense"])
        return float(compressed[kind] / counts["dense"][kind])

    return share


def quality_rows(names: Mapping[str, str]) -> list[list[str]]:
    """A row per method that has records: cost, then quality."""
    rows = []
    for name, title in names.items():
        records = experiments(name)
        if not records:
            continue
        regions = zip(
            *(record.results["held_out_loss"]["noise"] for record in records), strict=True
        )
        rows.append(
            [
                title,
                str(len(records)),
                over_seeds(name, skipped).text(".1f", 100),
                f"{100 * over_seeds(name, flops('total')).mean:.1f} "
                f"({100 * over_seeds(name, flops('linear')).mean:.1f})",
                " / ".join(f"{mean(values):.4f}" for values in regions),
                over_seeds(name, held_out).text(".5f"),
                over_seeds(name, accuracy).text(".1f", 100),
                over_seeds(name, frechet).text(".0f"),
            ]
        )
    return rows


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


def closed_gap(name: str, value: Callable[[Mapping[str, Any]], float]) -> Seeds:
    """Share of the gap from uniform ratios to the dense model that a method closes, per seed."""
    uniform, dense = over_seeds("mod-30", value), over_seeds("dense", value)
    triples = zip(uniform.values, over_seeds(name, value).values, dense.values, strict=True)
    return Seeds(tuple((u - v) / (u - d) for u, v, d in triples))


def claim_rows() -> list[list[str]]:
    """What learned ratios keep of what uniform ones lose; none before every seed is measured."""
    if any(len(experiments(name)) < len(SEEDS) for name in METHODS):
        return []
    rows = []
    for name in ("diffcr-l-30", "diffcr-lt-30-both", "diffcr-lt-30"):
        for what, value in (("held-out error", held_out), ("Frechet distance", frechet)):
            differs = over_seeds(name, value).differs_from(over_seeds("mod-30", value))
            title = f"{METHODS[name]}: share of the {what}'s gap, uniform to dense, that it closes"
            rows.append([title, _gap_text(closed_gap(name, value), differs)])
    sampled, both = (over_seeds(n, held_out) for n in ("diffcr-lt-30", "diffcr-lt-30-both"))
    change = 100 * (sampled.mean / both.mean - 1)
    compressed, dense = (over_seeds(n, accuracy) for n in ("diffcr-lt-30", "dense"))
    points = 100 * (compressed.mean - dense.mean)
    rows += [
        [
            "held-out error of sampled branches against both",
            _verdict(change, " %", sampled.differs_from(both)),
        ],
        [
            "caption accuracy of DiffCR-LT, sampled, against dense",
            _verdict(points, " points", compressed.differs_from(dense)),
        ],
    ]
    return rows


def _gap_text(share: Seeds, differs: bool) -> str:
    seeds = " / ".join(f"{100 * value:.0f}" for value in share.values)
    text = f"{100 * share.mean:.0f} % (seeds: {seeds})"
    return text if differs else f"{text}, no difference"


def _verdict(value: float, unit: str, differs: bool) -> str:
    return f"{value:+.1f}{unit}" + ("" if differs else ", no difference")


def speed_rows() -> Sequence[Sequence[str]]:
    """Seconds against the dense model's, all methods in turns; none before they are measured."""
    record = RESULTS / "methods-embedded.json"
    if not record.exists():
        return []
    results = read_record(record).results
    return [
        [title, *(f"{results[what]['ratio_to_dense'].get(name, 1.0):.2f}" for what in results)]
        for name, title in METHODS.items()
    ]
