"""Quality of what was fine-tuned: `python benchmarks/finetuned.py RUN`.

RUN is the directory of a training run on the embedded pipeline (`diffcr train ... --output RUN`),
DiffCR or dense. One record per run: caption accuracy, the judge's Frechet distance, held-out loss
per timestep region, FLOPs, latency, router maps, the course of the ratios, and the training record.
Of a DiffCR run the figures in `docs/images/` are drawn from it, too.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffcr
from diffcr import plotting
from diffcr.attachment import is_attached
from diffcr.evaluation.cost import trajectory_section
from diffcr.evaluation.judge import load_judge
from diffcr.evaluation.records import Record, write_record
from diffcr.evaluation.run import EvaluationOptions, Subjects, evaluate
from diffcr.files import read_json
from diffcr.lora import load_lora, read_lora
from diffcr.pretrained import GUIDANCE_SCALE, judge_path, load_default_pipeline
from diffcr.scenes import ScenesDataset
from diffcr.training.data import encode_dataset
from diffcr.training.history import read_history

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_FIGURES = {
    "compression": plotting.plot_compression,
    "trajectory": plotting.plot_trajectory,
    "router_maps": plotting.plot_router_maps,
}


def load_result(directory: Path) -> Any:
    """The embedded pipeline with what a run wrote."""
    pipe = load_default_pipeline()
    if (directory / "diffcr_config.json").exists():
        diffcr.load(pipe, directory)
    elif (directory / "adapter").exists():
        load_lora(pipe.transformer, read_lora(directory / "adapter"))
    else:
        pipe.transformer = type(pipe.transformer).from_pretrained(directory / "transformer")
    return pipe


def measure(run: Path, result: Path, captions: int, pairs: int) -> Record:
    """Evaluate what a run gave on the test split."""
    pipe = load_result(result)
    test = ScenesDataset("test", size=captions)
    scenes = [test[i] for i in range(captions)]
    options = EvaluationOptions(
        guidance_scale=GUIDANCE_SCALE,
        batch_size=32,
        held_out_samples=256,
        denoiser_repeats=pairs,
        pipeline_repeats=pairs // 3,
    )
    with tempfile.TemporaryDirectory() as directory:
        held_out = encode_dataset(pipe, test, Path(directory), 48)
    subjects = Subjects([scene.caption for scene in scenes], scenes, held_out)
    judge = load_judge(judge_path())
    bare = load_default_pipeline() if is_attached(pipe.transformer) else None
    target = RESULTS / f"finetuned-{run.name}"
    record = evaluate(pipe, subjects, target, options, judge, "finetuned", bare)
    training = read_json(run / "training_record.json")
    training["recipe"].pop("model")
    results = {**record.results, "training": training}
    if "compression" in results:
        target = results["compression"]["target"]
        results["trajectory"] = trajectory_section(read_history(run / "history.jsonl"), target)
    return replace(record, results=results)


def draw(record: Record, images: Path) -> None:
    """The figures of a DiffCR run, into `docs/images`."""
    folder = ROOT / "docs" / "images"
    for name, plot in _FIGURES.items():
        plot(record, folder / f"{name}.png")
    plotting.plot_images(record, images, folder / "images.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--result", type=Path, help="in place of the run's final/")
    parser.add_argument("--captions", type=int, default=512)
    parser.add_argument("--pairs", type=int, default=15)
    arguments = parser.parse_args()
    result = arguments.result or arguments.run / "final"
    measured = measure(arguments.run, result, arguments.captions, arguments.pairs)
    target = RESULTS / f"finetuned-{arguments.run.name}.json"
    print(write_record(measured, target))
    if "compression" in measured.results:
        draw(measured, target.with_suffix(""))
