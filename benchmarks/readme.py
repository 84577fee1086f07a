"""The tables of README and docs, from the committed records: `python benchmarks/readme.py`.

Each stands between `<!-- NAME -->` and `<!-- end -->`; a test checks that texts and records agree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import inpainting_tables
from claim import (
    ABLATIONS,
    AT_20,
    METHODS,
    RATIOS,
    RESULTS,
    SEEDS_HEADER,
    UNTRAINED,
    claim_rows,
    rows,
    seed_rows,
    speed_rows,
)

from diffcr.records.record import read_record
from diffcr.report.comparison import QUALITY_HEADER, quality_rows

ROOT = Path(__file__).parents[1]
FILLED = (ROOT / "README.md", *(ROOT / "docs" / f"{n}.md" for n in ("experiments", "inpainting")))


def _results(name: str) -> Mapping[str, Any]:
    return read_record(RESULTS / f"{name}.json").results


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "Not measured yet."
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def pretraining_table() -> str:
    """What the judge reads of real, reconstructed and generated test images."""
    results = _results("pretraining")
    judged, quality = results["judge"], results["quality"]
    rows = [
        ("real images", judged["real"]["per_attribute"], judged["real"]["exact_match"]),
        (
            "the same through the autoencoder",
            judged["reconstructed"]["per_attribute"],
            judged["reconstructed"]["exact_match"],
        ),
        (
            f"generated, 20 steps, guidance {results['guidance_scale']:g}",
            quality["caption_accuracy_per_attribute"],
            quality["caption_exact_match"],
        ),
    ]
    names = list(rows[0][1])
    header = ["images", "mean", *(name.replace("_", " ") for name in names), "all right"]
    return _table(
        header,
        [
            [
                title,
                _percent(sum(shares.values()) / len(shares)),
                *(_percent(shares[name]) for name in names),
                _percent(exact),
            ]
            for title, shares, exact in rows
        ],
    )


def quality_table() -> str:
    """Every fine-tuned row, mean and standard deviation over its seeds."""
    return _table(QUALITY_HEADER, quality_rows(rows(), METHODS))


def quality_at_20_table() -> str:
    """Rows at 20 %, the ratio of the paper's text-to-image model."""
    return _table(QUALITY_HEADER, quality_rows(rows(), AT_20))


def lora_table() -> str:
    """The same with a LoRA in place of all weights."""
    return _table(
        QUALITY_HEADER, quality_rows(rows(), {f"{n}-lora": t for n, t in METHODS.items()})
    )


def untrained_table() -> str:
    """Methods that are attached to the pipeline as it was pretrained, and fewer steps."""
    return _table(QUALITY_HEADER, quality_rows(rows(), UNTRAINED))


def ratios_table() -> str:
    """Quality at other ratios and with fewer steps."""
    return _table(QUALITY_HEADER, quality_rows(rows(), RATIOS))


def ablations_table() -> str:
    """DiffCR at 30 % with one setting changed."""
    return _table(QUALITY_HEADER, quality_rows(rows(), ABLATIONS))


def seeds_table() -> str:
    """Every seed of the claim's rows."""
    return _table(SEEDS_HEADER, seed_rows())


def claim_table() -> str:
    """What learned ratios keep of what uniform ones lose."""
    return _table(("DiffCR", "measured"), claim_rows())


def method_speed_table() -> str:
    """Time of every method against the dense model's."""
    header = ("time against the dense model", "denoiser", "pipeline", "training step")
    return _table(header, speed_rows())


def _forward_ratios(results: Mapping[str, Any]) -> Mapping[str, float]:
    """By compression, from a record of `diffcr bench` or one that holds ratios alone."""
    if "batches" not in results:
        return results["ratio_to_dense"]
    measured = results["batches"]["1"]
    return {f"{c}%": measured[f"diffcr:{c / 100:g}"]["ratio_to_dense"] for c in (20, 50)}


def speed_table() -> str:
    """Ratios to the dense model's time."""
    forward = _forward_ratios(_results("forward-pixart-sigma-xl-512"))
    step = _results("step-embedded-lora")
    learned = _percent(step["learned_mean_compression_ratio"])
    where = "forward of PixArt-Sigma XL/2's configuration, 512 x 512, batch 1"
    rows = [
        (f"{where}, 20 % in every layer", forward["20%"]),
        ("the same at 50 %", forward["50%"]),
        (
            f"fine-tuning step of the embedded model, sampled branches, learned table ({learned})",
            step["ratio_to_dense"]["learned table"],
        ),
        ("the same at ratio 0, where training begins", step["ratio_to_dense"]["c = 0"]),
    ]
    header = ("time against the dense model", "median ratio")
    return _table(header, [(title, f"{ratio:.3f}") for title, ratio in rows])


def gpu_table(pixels: int) -> str:
    """Ratios to the dense model's time on one GPU, and what operations alone predict."""
    name = f"forward-pixart-sigma-xl-{pixels}-h100"
    eager = _results(name)["batches"]
    ways = [("eager", eager, ""), ("CUDA graph", eager, ", CUDA graph")]
    if (RESULTS / f"{name}-compiled.json").exists():
        ways.append(("compiled", _results(f"{name}-compiled")["batches"], ", compiled"))
    header = [f"{pixels} x {pixels}, bfloat16"]
    header += [f"{way}, batch {size}" for way, batches, _ in ways for size in batches]
    rows = [
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
    return _table([*header, "total FLOPs"], rows)


def _ratio(measured: Mapping[str, Any], name: str) -> str:
    return f"{measured[name]['ratio_to_dense']:.2f}" if name in measured else "-"


def inpainting_table() -> str:
    """Quality of what is painted under a mask."""
    return _table(inpainting_tables.QUALITY_HEADER, inpainting_tables.quality_rows())


def inpainting_area_table() -> str:
    """Time of a whole run by the masked share."""
    return _table(inpainting_tables.area_header(), inpainting_tables.area_rows())


def inpainting_run_table() -> str:
    """Where the time of a whole run at XL/2's sizes goes."""
    return _table(inpainting_tables.run_header(), inpainting_tables.run_rows())


def inpainting_paper_table() -> str:
    """The paper's own figures, and what is counted here."""
    return _table(inpainting_tables.PAPER_HEADER, inpainting_tables.paper_rows())


TABLES = {
    "inpainting": inpainting_table,
    "inpainting area": inpainting_area_table,
    "inpainting run": inpainting_run_table,
    "inpainting paper": inpainting_paper_table,
    "pretraining": pretraining_table,
    "quality": quality_table,
    "quality at 20": quality_at_20_table,
    "lora": lora_table,
    "untrained": untrained_table,
    "ratios": ratios_table,
    "ablations": ablations_table,
    "seeds": seeds_table,
    "claim": claim_table,
    "method speed": method_speed_table,
    "speed": speed_table,
    "gpu 512": partial(gpu_table, 512),
    "gpu 1024": partial(gpu_table, 1024),
}


def filled(text: str) -> str:
    """A text with every table between its marks replaced by the records'."""
    for name, table in TABLES.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, lambda m, t=table: f"{m[1]}{t()}\n{m[2]}", text, flags=re.DOTALL)
    return text


if __name__ == "__main__":
    for file in FILLED:
        file.write_text(filled(file.read_text(encoding="utf-8")), encoding="utf-8")
