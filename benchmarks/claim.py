"""What the experiments' records say of the claim, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffcr.records.record import read_record
from diffcr.report.comparison import (
    Row,
    Seeds,
    Value,
    accuracy,
    frechet,
    held_out,
    own,
    read_rows,
    skipped,
)

RESULTS = Path(__file__).parent / "results"
CLAIMED = {
    "dense": "dense, continued",
    "mod-30": "uniform 30 % (MoD)",
    "diffcr-l-30": "DiffCR-L",
    "diffcr-lt-30-both": "DiffCR-LT, both branches",
    "diffcr-lt-30": "DiffCR-LT, sampled branches",
}
METHODS = {**CLAIMED, "pruning-30": "structured pruning 30 %"}
AT_20 = {
    "dense": CLAIMED["dense"],
    "mod-20": "uniform 20 % (MoD)",
    "diffcr-lt-20": "DiffCR-LT, 20 %",
    "pruning-20": "structured pruning 20 %",
}
UNTRAINED = {
    "dense-20-steps": "dense, as pretrained, 20 steps",
    "dense-14-steps": "dense, as pretrained, 14 steps",
    "tome-30": "ToMe 30 %, around the block",
    "tome-30-mlp": "ToMe 30 %, around the MLP",
    "tome-30-attention": "ToMe 30 %, around self-attention",
    "at-edm-30": "AT-EDM 30 %",
}
REUSED = {
    "reuse-30-calibrated": "reuse, 30 % of the steps, calibrated",
    "reuse-50-calibrated": "reuse, 50 % of the steps, calibrated",
    "reuse-65-steps": "reuse, 65 % of the steps",
    "reuse-80-calibrated": "reuse, 80 % of the steps, calibrated",
    "distilled-80": "the same, distilled",
    "distilled-85": "reuse, 85 % of the steps, distilled",
    "reuse-30-tokens": "reuse, 30 % of the tokens",
    "reuse-50-tokens": "reuse, 50 % of the tokens",
}
SLOW = "diffcr-lt-50-gradual"
FINISHED = {
    f"diffcr-lt-{ratio}-finished": f"DiffCR-LT on a slow way to 50 %, finished, {ratio} %"
    for ratio in (10, 20, 30)
}
RATIOS = {
    "mod-10": "uniform 10 % (MoD)",
    "mod-20": "uniform 20 %",
    "mod-30": "uniform 30 %",
    "mod-50": "uniform 50 %",
    "diffcr-lt-50-at-10": "DiffCR-LT on its way to 50 %, at 10 %",
    "diffcr-lt-50-at-20": "the same at 20 %",
    "diffcr-lt-50-at-30": "the same at 30 %",
    **FINISHED,
    SLOW: "that run to 50 % itself",
    **{f"diffcr-lt-{ratio}": f"DiffCR-LT, trained to {ratio} %" for ratio in (10, 20, 30, 50)},
    **{f"pruning-{ratio}": f"structured pruning {ratio} %" for ratio in (10, 20, 30, 50)},
    **{f"tome-{ratio}": f"ToMe {ratio} %, around the block" for ratio in (10, 20, 30, 50)},
    **{f"at-edm-{ratio}": f"AT-EDM {ratio} %" for ratio in (10, 20, 30, 50)},
    **{f"dense-{steps}-steps": f"dense, {steps} steps" for steps in (20, 16, 14, 12, 10, 8)},
}
FRONTIER = (
    *(f"dense-{steps}-steps" for steps in (20, 16, 14, 12, 10, 8, 6)),
    *(f"{method}-{ratio}" for method in ("pruning", "diffcr-lt") for ratio in (10, 20, 30, 50)),
    *(f"reuse-{ratio}-steps" for ratio in (30, 50, 65)),
    "reuse-80-calibrated",
    *(f"distilled-{ratio}" for ratio in (80, 85)),
    *(f"reuse-{ratio}-tokens" for ratio in (30, 50)),
    *(f"first-block-cache-{threshold}" for threshold in (12, 20, 30, 45)),
)
# Computes as many steps, others of them.
TIMED_AS = {f"reuse-{ratio}-calibrated": f"reuse-{ratio}-steps" for ratio in (30, 50)}
ABLATIONS = {
    "diffcr-lt-30": "DiffCR-LT: 4 regions, sampled branches, gate 2 sigmoid",
    "diffcr-lt-30-both": "both branches in every step",
    "diffcr-l-30": "1 region (DiffCR-L)",
    "diffcr-lt-30-regions-10": "10 regions",
    "diffcr-lt-30-sigmoid": "gate sigmoid, on the whole update",
    "diffcr-lt-30-sigmoid-mlp": "gate sigmoid, on the feed-forward alone",
    "diffcr-lt-30-route-every-2": "a router for two layers (route_every 2)",
    "diffcr-lt-30-lambda-constant": "constant weight of the ratio loss",
    "diffcr-lt-30-emphasis": "noise emphasis 0.3",
}
SEEDS_HEADER = (
    "row, seed",
    "held-out per region, clean to noisy",
    "mean",
    "gap closed",
    "caption accuracy",
    "all right",
    "judge's Frechet distance",
    "gap closed",
    "trained on",
)


def rows() -> dict[str, Row]:
    """All rows that have records."""
    return read_rows(RESULTS / "experiments")


def exact(results: Mapping[str, Any]) -> float:
    """Share of the images in which every attribute is right."""
    return float(own(results["quality"])["caption_exact_match"])


def uniform_row(name: str) -> str:
    """The row with uniform ratios that a row is held against."""
    row = "mod-20" if name in AT_20 else "mod-30"
    return f"{row}-lora" if name.endswith("-lora") else row


def closed_gap(measured: dict[str, Row], name: str, value: Value) -> Seeds:
    """Share of the gap from uniform ratios to the dense model that a method closes, per seed."""
    seeds = (measured[n].over_seeds(value).values for n in (uniform_row(name), name, "dense"))
    return Seeds(tuple((u - v) / (u - d) for u, v, d in zip(*seeds, strict=True)))


def claim_rows() -> list[list[str]]:
    """What learned ratios keep of what uniform ones lose."""
    measured, at_20 = rows(), AT_20["diffcr-lt-20"]
    learned = {name: title for name, title in CLAIMED.items() if name not in ("dense", "mod-30")}
    titles = {**learned, "diffcr-lt-20": at_20}
    lines = [line for name, title in titles.items() for line in _gap_lines(measured, name, title)]
    sampled, accurate = CLAIMED["diffcr-lt-30"], "caption accuracy of {}, against dense"
    both = "held-out error of sampled branches against both"
    for name, other, title, value in (
        ("diffcr-lt-30", "diffcr-lt-30-both", both, held_out),
        ("diffcr-lt-30", "dense", accurate.format(sampled), accuracy),
        ("diffcr-lt-20", "dense", accurate.format(at_20), accuracy),
    ):
        compared = (measured[row].over_seeds(value) for row in (name, other))
        lines.append([title, _change_text(*compared, in_points=value is accuracy)])
    return lines


def _gap_lines(measured: dict[str, Row], name: str, title: str) -> list[list[str]]:
    lines = []
    for what, value in (("held-out error", held_out), ("Frechet distance", frechet)):
        uniform = measured[uniform_row(name)].over_seeds(value)
        differs = measured[name].over_seeds(value).differs_from(uniform)
        share = _gap_text(closed_gap(measured, name, value), differs)
        said = f"{title}: share of the {what}'s gap, uniform to dense, that it closes"
        lines.append([said, share])
    return lines


def seed_rows() -> list[list[str]]:
    """Every seed of the rows at 30 %, all weights first, then LoRA, then at 20 %."""
    measured = rows()
    titles = {**METHODS, **{f"{name}-lora": f"{title}, LoRA" for name, title in METHODS.items()}}
    titles |= {name: title for name, title in AT_20.items() if name != "dense"}
    return [
        _seed_row(measured, name, title, place)
        for name, title in titles.items()
        if name in measured
        for place in range(len(measured[name].records))
    ]


def _seed_row(measured: dict[str, Row], name: str, title: str, place: int) -> list[str]:
    results = measured[name].records[place].results
    ends = (uniform_row(name), "dense-lora" if name.endswith("-lora") else "dense")
    shares = []
    for value in (held_out, frechet):
        uniform, dense = (measured[end].over_seeds(value).mean for end in ends)
        share = (uniform - value(results)) / (uniform - dense)
        shares.append("-" if name in ends else f"{100 * share:.0f} %")
    gpu = results["training"]["hardware"]["gpu"]
    return [
        f"{title}, {place}",
        " / ".join(f"{error:.4f}" for error in own(results["held_out_loss"])["noise"]),
        f"{held_out(results):.5f}",
        shares[0],
        f"{100 * accuracy(results):.1f} %",
        f"{100 * own(results['quality'])['caption_exact_match']:.0f} %",
        f"{frechet(results):.0f}",
        shares[1],
        gpu.removeprefix("NVIDIA ").partition(" ")[0] if gpu else "CPU",
    ]


def _change_text(changed: Seeds, other: Seeds, in_points: bool) -> str:
    change = changed.mean - other.mean if in_points else changed.mean / other.mean - 1
    text = f"{100 * change:+.1f} {'points' if in_points else '%'}"
    return text if changed.differs_from(other) else f"{text}, no difference"


def _gap_text(share: Seeds, differs: bool) -> str:
    seeds = " / ".join(f"{100 * value:.0f}" for value in share.values)
    text = f"{100 * share.mean:.0f} % (seeds: {seeds})"
    return text if differs else f"{text}, no difference"


def speed_rows() -> list[list[str]]:
    """Seconds against the dense model's, all methods in turns."""
    times = read_record(RESULTS / "methods-embedded.json").results["times"]
    return [
        [title, *(_share(part["ratio_to_dense"], name) for part in times.values())]
        for name, title in {**METHODS, **UNTRAINED}.items()
        if name in times["pipeline"]["median_seconds"]
    ]


def _share(ratios: Mapping[str, float], name: str) -> str:
    ratio = 1.0 if name == "dense" else ratios.get(name)
    return "-" if ratio is None else f"{ratio:.2f}"


FRONTIER_HEADER = (
    "20 denoising steps if not said",
    "tokens skipped, %",
    "time of the pipeline",
    "caption accuracy",
    "all right",
    "judge's Frechet distance",
)
SHOWN = {
    "dense-20-steps": "dense",
    **REUSED,
    "first-block-cache-20": "diffusers' First-Block-Cache, threshold 0.2",
    "dense-14-steps": "14 dense steps",
    "dense-10-steps": "10 dense steps",
    "dense-6-steps": "6 dense steps",
    "pruning-30": "structured pruning 30 %, trained",
    "diffcr-lt-30": "DiffCR-LT 30 %, as in the paper, trained",
}


def frontier_rows() -> list[list[str]]:
    """Quality beside the time of the whole pipeline, all timed in one run."""
    seconds = read_record(RESULTS / "frontier-embedded.json").results["times"]["pipeline"]
    ratios, measured = {"dense-20-steps": 1.0, **seconds["ratio_to_dense"]}, rows()
    lines = []
    for name, title in SHOWN.items():
        row = measured[name]
        share = row.over_seeds(skipped).mean
        lines.append(
            [
                title,
                f"{100 * share:.0f}" if share else "-",
                f"{ratios[TIMED_AS.get(name, name)]:.2f}",
                f"{100 * row.over_seeds(accuracy).mean:.1f} %",
                f"{100 * row.over_seeds(exact).mean:.0f} %",
                f"{row.over_seeds(frechet).mean:.0f}",
            ]
        )
    return lines
