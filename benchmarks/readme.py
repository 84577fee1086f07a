"""Tables and figures of README and docs, from the committed records: `python benchmarks/readme.py`.

A table stands between `<!-- NAME -->` and `<!-- end -->`; a test checks that texts and records
agree. With --figures those of `docs/images/` are drawn, too.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import inpainting_tables
import overview_tables
import reuse_tables
import step_cache_tables
from claim import (
    ABLATIONS,
    AT_20,
    FRONTIER_HEADER,
    METHODS,
    RATIOS,
    RESULTS,
    SEEDS_HEADER,
    UNTRAINED,
    claim_rows,
    frontier_rows,
    rows,
    seed_rows,
    speed_rows,
)
from figures import draw_figures
from rows import ROOT

from diffcr.records.record import read_record
from diffcr.report.comparison import QUALITY_HEADER, own, quality_rows

_PAGES = ("results", "experiments", "inpainting", "distilling")
FILLED = (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in _PAGES))
_SPEED_HEADER = ("time against the dense model", "denoiser", "pipeline", "training step")


def _results(name: str) -> Mapping[str, Any]:
    return read_record(RESULTS / f"{name}.json").results


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def pretraining_table() -> str:
    """What the judge reads of real, reconstructed and generated test images."""
    results = _results("pretraining")
    judged, quality = results["judge"], own(results["quality"])
    generated = {
        "per_attribute": quality["caption_accuracy_per_attribute"],
        "exact_match": quality["caption_exact_match"],
    }
    rows = {
        "real images": judged["real"],
        "the same through the autoencoder": judged["reconstructed"],
        f"generated, 20 steps, guidance {results['guidance_scale']:g}": generated,
    }
    names = list(judged["real"]["per_attribute"])
    header = ["images", "mean", *(name.replace("_", " ") for name in names), "all right"]
    lines = []
    for title, found in rows.items():
        shares = found["per_attribute"]
        mean = sum(shares.values()) / len(shares)
        values = [mean, *(shares[name] for name in names), found["exact_match"]]
        lines.append([title, *map(_percent, values)])
    return _table(header, lines)


def quality_table(titles: Mapping[str, str]) -> str:
    """Cost and quality of rows, mean and standard deviation over their seeds."""
    return _table(QUALITY_HEADER, quality_rows(rows(), titles))


def step_table() -> str:
    """Ratios to the dense model's time."""
    measured = _results("forward-pixart-sigma-xl-512")["batches"]["1"]
    forward = {c: measured[f"diffcr:{c}"]["ratio_to_dense"] for c in (0.2, 0.5)}
    results = _results("step-embedded-lora")
    step = results["times"]["training step"]["ratio_to_dense"]
    learned = _percent(results["learned_mean_compression_ratio"])
    where = "forward of PixArt-Sigma XL/2's configuration, 512 x 512, batch 1"
    lines = [
        (f"{where}, 20 % in every layer", forward[0.2]),
        ("the same at 50 %", forward[0.5]),
        (
            f"fine-tuning step of the embedded model, sampled branches, learned table ({learned})",
            step["learned table"],
        ),
        ("the same at ratio 0, where training begins", step["c = 0"]),
    ]
    header = ("time against the dense model", "median ratio")
    return _table(header, [(title, f"{ratio:.3f}") for title, ratio in lines])


def gpu_table(pixels: int) -> str:
    """Ratios to the dense model's time on one GPU, and what operations alone predict."""
    name = f"forward-pixart-sigma-xl-{pixels}-h100"
    eager = _results(name)["batches"]
    ways = [("eager", eager, ""), ("CUDA graph", eager, ", CUDA graph")]
    if (RESULTS / f"{name}-compiled.json").exists():
        ways.append(("compiled", _results(f"{name}-compiled")["batches"], ", compiled"))
    header = [f"{pixels} x {pixels}, bfloat16"]
    header += [f"{way}, batch {size}" for way, batches, _ in ways for size in batches]
    lines = [
        [
            name,
            *(
                _ratio(measured, name + suffix)
                for _, batches, suffix in ways
                for measured in batches.values()
            ),
            f"{values['flops_ratio']['total']:.2f}",
        ]
        for name, values in eager["1"].items()
        if "," not in name
    ]
    return _table([*header, "total FLOPs"], lines)


def _ratio(measured: Mapping[str, Any], name: str) -> str:
    return f"{measured[name]['ratio_to_dense']:.2f}" if name in measured else "-"


TABLES = {
    **{
        name: lambda made=made: _table(*made())
        for name, made in {
            **inpainting_tables.TABLES,
            **overview_tables.TABLES,
            **reuse_tables.TABLES,
            **step_cache_tables.TABLES,
        }.items()
    },
    "pretraining": pretraining_table,
    "quality": partial(quality_table, METHODS),
    "quality at 20": partial(quality_table, AT_20),
    "lora": partial(quality_table, {f"{n}-lora": t for n, t in METHODS.items()}),
    "untrained": partial(quality_table, UNTRAINED),
    "frontier": lambda: _table(FRONTIER_HEADER, frontier_rows()),
    "ratios": partial(quality_table, RATIOS),
    "ablations": partial(quality_table, ABLATIONS),
    "seeds": lambda: _table(SEEDS_HEADER, seed_rows()),
    "claim": lambda: _table(("DiffCR", "measured"), claim_rows()),
    "method speed": lambda: _table(_SPEED_HEADER, speed_rows()),
    "speed": step_table,
    "gpu 512": partial(gpu_table, 512),
    "gpu 1024": partial(gpu_table, 1024),
}


def filled(text: str) -> str:
    """A text with every table between its marks replaced by the records'."""
    for name, table in TABLES.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda m, t=table: f"{m[1]}{t()}\n{m[2]}", text, flags=re.DOTALL)
    return text


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figures", action="store_true")
    arguments = parser.parse_args()
    for file in FILLED:
        file.write_text(filled(file.read_text(encoding="utf-8")), encoding="utf-8")
    if arguments.figures:
        draw_figures(ROOT / "docs" / "images")


if __name__ == "__main__":
    main()
