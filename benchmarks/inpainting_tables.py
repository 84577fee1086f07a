"""What the records of inpainting say, as tables, and the paper's table beside our count.

A table is its header and its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from diffcr.checkpoint.contenders import parse_contender
from diffcr.cost.counting import count_contender
from diffcr.hosts.input_size import InputSize
from diffcr.hosts.published import PAPERS_TEXT_TOKENS, transformer_config
from diffcr.inpainting import LazyTransformer2DModel
from diffcr.records.record import read_record
from diffcr.report.comparison import Row, skipped

Table = tuple[Sequence[str], list[list[str]]]
RESULTS = Path(__file__).parent / "results"
TITLES = {
    "regenerate-image": "RegenerateImage",
    "regenerate-crop": "RegenerateCrop",
    "lazy": "Lazy Diffusion, uncompressed",
    "mod-30": "uniform 30 % in the decoder (MoD)",
    "diffcr-l-30": "DiffCR-L 30 % in the decoder",
    "diffcr-lt-30-regions-4": "DiffCR-LT 30 % in the decoder, 4 regions",
    "diffcr-lt-30": "DiffCR-LT 30 % in the decoder, 10 regions",
    "encoder-50": "DiffCR-L 50 % in the encoder",
    "photographs": "uncompressed, trained on photographs too",
    "tome-30": "ToMe 30 %",
    "at-edm-30": "AT-EDM 30 %",
}
# A column's section and value in a record, how it is written, and what it is multiplied with.
_QUALITY = {
    "caption accuracy, %": ("scenes", "caption_accuracy", ".1f", 100),
    "judge's Frechet distance": ("scenes", "judge_frechet_distance", ".0f", 1),
    "PSNR under the mask, dB": ("scenes", "psnr_under_mask", ".1f", 1),
    "structural similarity there": ("scenes", "structural_similarity_under_mask", ".2f", 1),
    "PSNR on photographs, dB": ("photographs", "psnr_under_mask", ".1f", 1),
}


def quality_table() -> Table:
    """Every row that has records, mean and standard deviation over its seeds."""
    lines = []
    for name, title in TITLES.items():
        paths = sorted((RESULTS / "inpainting").glob(f"{name}-seed-[0-9]*.json"))
        if not paths:
            continue
        row = Row(name, tuple(read_record(path) for path in paths))
        routed = all("compression" in record.results for record in row.records)
        cells = [
            row.over_seeds(lambda results, s=section, v=value: results[s][v]).text(form, factor)
            for section, value, form, factor in _QUALITY.values()
        ]
        share = row.over_seeds(skipped).text(".1f", 100) if routed else "-"
        lines.append([title, str(len(paths)), share, *cells])
    return ["inpainting", "seeds", "tokens skipped, %", *_QUALITY], lines


def area_table() -> Table:
    """Time of a whole run and operations of a step by masked share."""
    results = read_record(RESULTS / "inpainting-area.json").results
    times, flops = results["times"], results["decoder_flops"]
    lines = []
    for name, title in TITLES.items():
        cells = [
            f"{found['ratio_to_dense'][name]:.2f} "
            f"({flops[area][name] / flops[area]['regenerate-image']:.2f})"
            for area, found in times.items()
            if name in found["ratio_to_dense"]
        ]
        lines += [[title, *cells]] if cells else []
    return ["whole run's time (a step's total FLOPs) against RegenerateImage's", *times], lines


def run_table() -> Table:
    """Seconds of every part of a whole run at XL/2's sizes."""
    record = read_record(RESULTS / "inpainting-run-xl-1024.json")
    runs, steps = record.results["seconds"], record.configuration["steps"]
    lines = [
        [name, *(f"{seconds:.1f}" for seconds in (*parts.values(), sum(parts.values())))]
        for name, parts in runs.items()
    ]
    return [f"seconds of a run of {steps} steps", *runs["uncompressed"], "all"], lines


@dataclass(frozen=True)
class PaperRow:
    """A row of the paper's table of inpainting (You et al., CVPR 2025), masks of 512 x 512 and
    256 x 256 of 1024 x 1024 pixels.

    Attributes:
        fid: As printed.
        clip: As printed.
        flops: G of linear layers of the denoiser's forward.
        seconds: Of whole runs on an A100.
        method: What `diffcr flops` calls it; empty where its settings do not say what it costs.
    """

    fid: str
    clip: str
    flops: tuple[float, float]
    seconds: tuple[float, float]
    method: str = ""


PAPER = {
    "RegenerateImage": PaperRow("9.53", "0.1942", (809.8, 809.8), (13.11, 13.11)),
    "RegenerateCrop": PaperRow("54.43", "0.1737", (267.3, 199.2), (4.30, 4.19)),
    "Lazy Diffusion": PaperRow("10.90", "0.1882", (1085.1, 285.8), (17.13, 5.68), "dense"),
    "model pruning": PaperRow("27.36", "0.1796", (775.5, 204.5), (15.33, 5.37), "pruning:0.3"),
    "ToMe": PaperRow("279.36", "0.1496", (765.7, 206.7), (16.82, 6.64), "tome:0.3:block"),
    "AT-EDM": PaperRow("203.35", "0.1459", (751.4, 202.8), (15.49, 6.11), "at-edm:0.3"),
    "MoD": PaperRow("18.34", "0.1850", (764.6, 205.1), (13.02, 4.83), "mod:0.3"),
    "DiffCR-L": PaperRow("13.53", "0.1839", (822.9, 220.4), (13.71, 5.30)),
    "DiffCR-LT": PaperRow("13.42", "0.1845", (804.9, 214.5), (13.89, 5.21)),
}
_PAPER_HEADER = (
    "the paper's inpainting, 50 % in the encoder, 30 % in the decoder",
    "FID",
    "CLIP",
    "G of a decoder's forward",
    "counted here",
    "whole run, s on an A100",
)
_MASKED = (1024, 256)


def paper_table() -> Table:
    """The paper's rows, with our count where a method's cost follows from its configuration."""
    lines = []
    for name, row in PAPER.items():
        flops, seconds = _pair(row.flops, ".1f"), _pair(row.seconds, ".2f")
        counted = [counted_flops(row.method, masked) for masked in _MASKED] if row.method else []
        lines.append([name, row.fid, row.clip, flops, _pair(counted, ".1f") or "-", seconds])
    return _PAPER_HEADER, lines


def _pair(values: Sequence[float], form: str) -> str:
    return " / ".join(f"{value:{form}}" for value in values)


@cache
def counted_flops(method: str, masked: int) -> float:
    """G of the linear layers of XL/2's decoder under a method, `masked` tokens of 4096."""
    config = transformer_config("pixart-alpha-xl", 1024)
    width = config["num_attention_heads"] * config["attention_head_dim"]
    with torch.device("meta"):
        decoder = LazyTransformer2DModel.from_config({**config, "context_channels": width})
    size = InputSize(PAPERS_TEXT_TOKENS, masked_tokens=masked)
    return count_contender(parse_contender(method), decoder, size).mean.linear / 1e9


TABLES: dict[str, Callable[[], Table]] = {
    "inpainting": quality_table,
    "inpainting area": area_table,
    "inpainting run": run_table,
    "inpainting paper": paper_table,
}
