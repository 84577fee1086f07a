"""What the records of inpainting say, as tables."""

from __future__ import annotations

from pathlib import Path

from diffcr.evaluation.comparison import Seeds
from diffcr.evaluation.records import Record, read_record

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

    return [
        over_seeds("quality", "caption_accuracy").text(".1f", 100),
        over_seeds("quality", "judge_frechet_distance").text(".0f"),
        over_seeds("quality", "psnr_under_mask").text(".1f"),
        over_seeds("quality", "structural_similarity_under_mask").text(".2f"),
        over_seeds("photographs", "psnr_under_mask").text(".1f"),
    ]


def area_header() -> list[str]:
    """Masked shares that were measured."""
    return ["whole run against RegenerateImage's time", *_areas()]


def _areas() -> dict[str, dict[str, dict[str, float]]]:
    path = RESULTS / "inpainting-area.json"
    return dict(read_record(path).results) if path.exists() else {}


def area_rows() -> list[list[str]]:
    """Time of a whole run by masked share."""
    ratios = [found["ratio_to_dense"] for found in _areas().values()]
    return [
        [title, *(f"{found[name]:.2f}" for found in ratios)]
        for name, title in TITLES.items()
        if ratios and name in ratios[0]
    ]
