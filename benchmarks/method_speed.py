"""Time of every method side by side: `python benchmarks/method_speed.py [--rounds N]`.

On the rows of `benchmarks/experiments/` and of `benchmarks/untrained/`, all in turns in every
round: the denoiser (16 samples, mean over the timestep regions), the pipeline (8 images, guidance,
the row's own number of steps), and, of the rows at 30 %, a training step of all weights (32
samples, bfloat16, nothing compiled, AdamW).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from claim import METHODS, RATIOS, RESULTS
from experiments import EXPERIMENTS, RUNS, experiment_recipe
from measuring import SETTINGS
from speed import summarised, timed_samples, training_step
from untrained import ROWS, open_row, row_configuration

from diffcr.binding.attachment import attach
from diffcr.checkpoint.contenders import ROUTERS_SEED, draw_routers
from diffcr.evaluation.generate import generate_images
from diffcr.evaluation.timing.speed import sweep_regions
from diffcr.methods.config import DenseConfig
from diffcr.methods.diffcr.compressor import Compressor
from diffcr.methods.diffcr.config import DiffCRConfig
from diffcr.pretrained import load_default_pipeline
from diffcr.records.record import make_record, read_record, write_record
from diffcr.scenes import ScenesDataset
from diffcr.training.run import attention_kernel

_REGIONS = 4
_IMAGES = 8


@dataclass(frozen=True)
class _Subject:
    """A pipeline and the denoising steps that it takes."""

    pipe: Any
    steps: int


def _trained(names: Iterable[str]) -> dict[str, _Subject]:
    opened = {name: _open_trained(name) for name in names}
    steps = SETTINGS["num_inference_steps"]
    return {name: _Subject(pipe, steps) for name, pipe in opened.items() if pipe is not None}


def _open_trained(name: str) -> Any:
    """What takes the time of the row's seed 0: its method with the ratios that its record says it
    learned, untrained else. None where a learned row has no record."""
    method = experiment_recipe(name, seed=0).method
    record = RESULTS / "experiments" / f"{name}-seed-0.json"
    if isinstance(method, DiffCRConfig) and not record.exists():
        return None
    pipe = load_default_pipeline()
    if isinstance(method, DenseConfig):
        return pipe
    attached = attach(pipe, method)
    if isinstance(attached, Compressor):
        draw_routers(attached)
        if isinstance(method, DiffCRConfig):
            learned = read_record(record).results["compression"]["realised"]
            attached.set_compression_ratios(torch.tensor(learned))
    return pipe


def _untrained() -> dict[str, _Subject]:
    subjects = {}
    for name in sorted(path.stem for path in ROWS.glob("*.json")):
        configuration = row_configuration(name)
        if "checkpoint" not in configuration or (RUNS / configuration["checkpoint"]).exists():
            pipe = open_row(configuration)
            subjects[name] = _Subject(pipe, configuration["num_inference_steps"])
    return subjects


def _pipeline(subject: _Subject, prompts: list[str]) -> Callable[[], None]:
    def run() -> None:
        generate_images(
            subject.pipe,
            prompts,
            num_inference_steps=subject.steps,
            guidance_scale=SETTINGS["guidance_scale"],
            batch_size=len(prompts),
        )

    return run


def _training(pipe: Any, batch: int) -> Callable[[], None]:
    step = training_step(pipe.transformer, batch)

    def run() -> None:
        kernel = attention_kernel(torch.device("cpu"), "bf16")
        with torch.autocast("cpu", dtype=torch.bfloat16), kernel:
            step()

    return run


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    trained = _trained(METHODS)
    others = [n for n in RATIOS if n not in METHODS and (EXPERIMENTS / f"{n}.json").exists()]
    subjects = trained | _trained(others) | _untrained()
    test = ScenesDataset("test", size=_IMAGES)
    prompts = [test[i].caption for i in range(_IMAGES)]
    whole = SETTINGS["num_inference_steps"]
    calls = {
        "denoiser": {
            name: sweep_regions(subject.pipe, 16, _REGIONS)
            for name, subject in subjects.items()
            if subject.steps == whole
        },
        "pipeline": {name: _pipeline(subject, prompts) for name, subject in subjects.items()},
        "training step": {name: _training(s.pipe, 32) for name, s in trained.items()},
    }
    samples: dict[str, list[float]] = {}
    results = {}
    for what, runs in calls.items():
        rounds = arguments.rounds // 3 if what == "pipeline" else arguments.rounds
        for subject in subjects.values():
            subject.pipe.transformer.train(what == "training step")
        seconds = timed_samples(runs, rounds)
        results[what] = summarised(seconds)
        samples |= {f"{what}/{name}": values for name, values in seconds.items()}
        print(what, results[what]["ratio_to_dense"], flush=True)
    seeds = {"training": 0, "routers": ROUTERS_SEED}
    settings = {"rounds": arguments.rounds}
    record = make_record("speed", settings, results, seeds=seeds, samples=samples)
    print(write_record(record, RESULTS / "methods-embedded.json"))


if __name__ == "__main__":
    main()
