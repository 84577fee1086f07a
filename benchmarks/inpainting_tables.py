"""What the records of inpainting say, as tables, and the paper's table beside our count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from speed import CONTEXT_CHANNELS

from diffcr.checkpoint.contenders import parse_contender
from diffcr.cost.counting import count_contender
from diffcr.evaluation.timing.subject import PAPERS_TEXT_TOKENS
from diffcr.hosts.family import InputSize
from diffcr.hosts.published import transformer_config
from diffcr.inpainting import LazyTransformer2DModel
from diffcr.records.record import Record, read_record
from diffcr.report.comparison import Seeds

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
QUALITY_HEADER = (
    "inpainting",
    "seeds",
    "tokens skipped, %",
    "caption accuracy, %",
    "judge's Frechet distance",
    "PSNR under the mask, dB",
    "structural similarity there",
    "PSNR on photographs, dB",
)


def quality_rows() -> list[list[str]]:
    """Every row that has records, mean and standard deviation over its seeds."""
    lines = []
    for name, title in TITLES.items():
        paths = sorted((RESULTS / "inpainting").glob(f"{name}-seed-*.json"))
        records = [read_record(path) for path in paths]
        if records:
            lines.append([title, str(len(records)), *_quality(records)])
    return lines


def _quality(records: list[Record]) -> list[str]:
    def over_seeds(section: str, value: str) -> Seeds:
        return Seeds(tuple(record.results[section][value] for record in records))

    routed = all("compression" in record.results for record in records)
    return [
        over_seeds("compression", "realised_mean").text(".1f", 100) if routed else "-",
        over_seeds("quality", "caption_accuracy").text(".1f", 100),
        over_seeds("quality", "judge_frechet_distance").text(".0f"),
        over_seeds("quality", "psnr_under_mask").text(".1f"),
        over_seeds("quality", "structural_similarity_under_mask").text(".2f"),
        over_seeds("photographs", "psnr_under_mask").text(".1f"),
    ]


def area_header() -> list[str]:
    """Masked shares that were measured."""
    return ["whole run's time (a step's total FLOPs) against RegenerateImage's", *_areas()]


def _areas() -> dict[str, dict[str, dict[str, float]]]:
    path = RESULTS / "inpainting-area.json"
    return dict(read_record(path).results) if path.exists() else {}


def area_rows() -> list[list[str]]:
    """Time of a whole run and operations of a step by masked share."""
    areas = list(_areas().values())
    return [
        [title, *(_cost(found, name) for found in areas)]
        for name, title in TITLES.items()
        if areas and name in areas[0]["ratio_to_dense"]
    ]


def _cost(found: dict[str, dict[str, float]], name: str) -> str:
    flops = found["decoder_flops"]
    share = flops[name] / flops["regenerate-image"]
    return f"{found['ratio_to_dense'][name]:.2f} ({share:.2f})"


def run_header() -> list[str]:
    """Parts of a whole run at XL/2's sizes."""
    return [f"seconds of a run of {_whole_run().configuration['steps']} steps", *_parts(), "all"]


def run_rows() -> list[list[str]]:
    """Seconds of every part of a whole run at XL/2's sizes."""
    return [
        [name, *(f"{found[part]:.1f}" for part in _parts()), f"{sum(found.values()):.1f}"]
        for name, found in _whole_run().results["seconds"].items()
    ]


def _whole_run() -> Record:
    return read_record(RESULTS / "inpainting-run-xl-1024.json")


def _parts() -> list[str]:
    return list(_whole_run().results["seconds"]["uncompressed"])


@dataclass(frozen=True)
class PaperRow:
    """A row of the paper's table of inpainting (You et al., CVPR 2025), masks of 512 x 512 and
    256 x 256 of 1024 x 1024 pixels.

    Attributes:
        fid, clip: As printed.
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
PAPER_HEADER = (
    "the paper's inpainting, 50 % in the encoder, 30 % in the decoder",
    "FID",
    "CLIP",
    "G of a decoder's forward",
    "counted here",
    "whole run, s on an A100",
)
_MASKED = (1024, 256)


def paper_rows() -> list[list[str]]:
    """The paper's rows, with our count where a method's cost follows from its configuration."""
    return [
        [
            name,
            row.fid,
            row.clip,
            _pair(row.flops, ".1f"),
            _counted(row.method),
            _pair(row.seconds, ".2f"),
        ]
        for name, row in PAPER.items()
    ]


def _pair(values: Sequence[float], form: str) -> str:
    return " / ".join(f"{value:{form}}" for value in values)


def _counted(method: str) -> str:
    return _pair([counted_flops(method, masked) for masked in _MASKED], ".1f") if method else "-"


@cache
def counted_flops(method: str, masked: int) -> float:
    """G of the linear layers of XL/2's decoder under a method, `masked` tokens of 4096."""
    config = {**transformer_config("pixart-alpha-xl", 1024), "context_channels": CONTEXT_CHANNELS}
    with torch.device("meta"):
        decoder = LazyTransformer2DModel.from_config(config)
    size = InputSize(PAPERS_TEXT_TOKENS, masked_tokens=masked)
    return count_contender(parse_contender(method), decoder, size).mean.linear / 1e9
