"""What is measured of every row of the comparison, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pretrained import tile

from diffcr.binding.model import get_compressor, is_routed
from diffcr.cost.sections import compression_section, flops_section
from diffcr.evaluation.generate import generate_images
from diffcr.evaluation.held_out import held_out_loss
from diffcr.evaluation.quality import measure_quality
from diffcr.evaluation.router_auc import router_auc
from diffcr.evaluation.router_maps import scene_router_maps
from diffcr.files import replacing_file
from diffcr.hosts.loading import text_tokens
from diffcr.pretrained import GUIDANCE_SCALE, judge_path
from diffcr.records.record import make_record, write_record
from diffcr.scenes import Scene, ScenesDataset
from diffcr.scenes.judge import load_judge
from diffcr.training.data.encoding import EncodedDataset, encode_dataset

ROOT = Path(__file__).parents[1]
ENCODED = ROOT / "runs" / "experiments" / "encoded"
RECORDS = ROOT / "benchmarks" / "results" / "experiments"
SETTINGS: dict[str, Any] = {
    "images": 2000,
    "num_inference_steps": 20,
    "guidance_scale": GUIDANCE_SCALE,
    "image_precision": "bf16",
    "held_out_regions": 4,
    "held_out_samples": 512,
}
_MAPPED = (950, 700, 450, 200, 50)
_ROUTER_SCENES = 32
_SHOWN = 16


@dataclass
class Measured:
    """A row's results, raw samples and first images."""

    results: dict[str, Any]
    images: list[Image.Image]
    samples: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class TestSet:
    """Test scenes, and the same encoded."""

    scenes: list[Scene]
    encoded: EncodedDataset


def load_test_set(pipe: Any) -> TestSet:
    """The scenes of `SETTINGS`."""
    test = ScenesDataset("test", size=SETTINGS["images"])
    encoded = encode_dataset(pipe, test, ENCODED, text_tokens(pipe))
    return TestSet([test[i] for i in range(len(test))], encoded)


def measure_pipeline(
    pipe: Any, test: TestSet, steps: int, name: str, held_out: bool = True
) -> Measured:
    """Quality and operations of a pipeline; what its routers do, where it has any.

    Args:
        pipe: As it is called.
        test: What it is measured on.
        steps: Denoising steps of its images.
        name: Shown with the progress.
        held_out: Whether to measure the held-out loss, which steps do not change.
    """
    images = _generate(pipe, test.scenes, steps, name)
    results: dict[str, Any] = {
        "quality": measure_quality(load_judge(judge_path()), images, test.scenes).to_json_dict(),
        "flops": flops_section(pipe, steps),
    }
    measured = Measured(results, images)
    if held_out:
        measured.samples |= measure_held_out(pipe, test.encoded, results)
    if is_routed(pipe.transformer):
        results["compression"] = compression_section(get_compressor(pipe))
        maps = scene_router_maps(pipe, test.scenes[0], _MAPPED, 0)
        results["router_maps"] = maps.to_json_dict()
        results["router_auc"] = router_auc(pipe, test.scenes[:_ROUTER_SCENES]).to_json_dict()
    return measured


def measure_held_out(
    pipe: Any, data: EncodedDataset, results: dict[str, Any]
) -> dict[str, list[float]]:
    """Writes the section `held_out_loss`; the raw samples by region."""
    loss = held_out_loss(pipe, data, SETTINGS["held_out_regions"], SETTINGS["held_out_samples"])
    results["held_out_loss"] = loss.to_json_dict()
    return {f"held_out_loss/region-{region}": list(v) for region, v in enumerate(loss.samples)}


def write_row(
    name: str, configuration: dict[str, Any], measured: Measured, seeds: dict[str, int]
) -> Path:
    """Write the row's record, and a sheet of its first images beside it."""
    seeds = {**seeds, "images": 0, "held_out": 0}
    record = make_record(
        "experiment", configuration, measured.results, seeds=seeds, samples=measured.samples
    )
    # An earlier run's sheet is tracked: written before the record is made, it would be dirty.
    with replacing_file(RECORDS / f"{name}.png") as temporary:
        tile(measured.images[:_SHOWN]).save(temporary, format="png")
    return write_record(record, RECORDS / f"{name}.json")


def _generate(pipe: Any, scenes: Sequence[Scene], steps: int, name: str) -> list[Image.Image]:
    device = pipe.transformer.device.type
    with torch.autocast(device, dtype=torch.bfloat16):
        return generate_images(
            pipe,
            [scene.caption for scene in scenes],
            num_inference_steps=steps,
            guidance_scale=SETTINGS["guidance_scale"],
            batch_size=50,
            progress=name,
        )
