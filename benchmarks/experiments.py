"""Train and measure the rows of the comparison: `python benchmarks/experiments.py [NAME ...]`.

`rows.py` says what a run is. Its record is `benchmarks/results/experiments/NAME-seed-S.json`, with
a sheet of its first images beside it where a figure shows them. What is there already, of the same
recipe, is not done again; what was interrupted goes on; a run that goes on from a checkpoint of
another run's run comes after it.

With --eager nothing is compiled: on a GPU these small models take less time to train than to
compile. With --jobs N so many rows run at a time, each in a process of its own, whose output is in
`runs/experiments/logs/`; their seconds are then no measure of speed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pretrained import tile
from rows import (
    MAPPED,
    OPTIONS,
    RUNS,
    SETTINGS,
    SHEETS,
    TEST_IMAGES,
    Run,
    all_names,
    described,
    load_result,
)
from tqdm.auto import tqdm

from diffcr.binding.model import get_attached, get_compressor
from diffcr.checkpoint.saving import save
from diffcr.distillation.distill import distill
from diffcr.distillation.settings import DistillationSettings
from diffcr.errors import DiffCRError
from diffcr.evaluation.compression import Compression, Trajectory
from diffcr.evaluation.evaluate import evaluate
from diffcr.evaluation.generate import generate_images
from diffcr.evaluation.held_out import held_out_loss
from diffcr.evaluation.options import EvaluationOptions, Subjects
from diffcr.files import read_json, replacing_file, write_json
from diffcr.hosts.loading import text_tokens
from diffcr.methods.diffcr.config import DiffCRConfig
from diffcr.pretrained import judge_path, load_default_pipeline
from diffcr.records.record import make_record, write_record
from diffcr.scenes import ScenesDataset
from diffcr.scenes.judge import load_judge
from diffcr.training.data.encoding import EncodedDataset, encode_dataset
from diffcr.training.data.pictures import open_dataset
from diffcr.training.job import run_recipe
from diffcr.training.recipe import TrainingRecipe, recipe_from_dict
from diffcr.training.run_directory import read_history

_SHOWN = 8


def in_waves(runs: list[Run]) -> list[list[Run]]:
    """What to do, first what others of them go on from, also where it was not asked for but is
    missing."""
    starts = [run.start for run in runs]
    missing = [s for s in starts if s and s not in runs and not s.directory.exists()]
    first = [*dict.fromkeys(missing), *(run for run in runs if run.start is None)]
    return [first, [run for run in runs if run not in first]]


def train(recipe: TrainingRecipe, directory: Path, eager: bool = False) -> None:
    """Train a row to its end, into a directory; nothing where that is done.

    Raises:
        DiffCRError: Another recipe was trained there.
    """
    record = directory / "training_record.json"
    if not record.exists():
        run_recipe(replace(recipe, compile=recipe.compile and not eager), directory)
    trained = recipe_from_dict(read_json(record)["recipe"], str(directory))
    if described(trained) != described(recipe):
        raise DiffCRError(f"{directory} is another recipe's: remove it to train anew")


def distil(run: Run) -> None:
    """Calibrate and distil a row's token reuse to its end; nothing where that is done."""
    settings = dict(run.configuration["distillation"])
    captions = ScenesDataset("train", size=settings.pop("captions"))
    checkpoint, record = run.directory / "checkpoint", run.directory / "distillation.json"
    if record.exists():
        return
    pipe = load_default_pipeline()
    run.calibrate(pipe)
    given = DistillationSettings(
        **{**settings, "budgets": tuple(settings["budgets"])},
        num_inference_steps=OPTIONS.num_inference_steps,
        guidance_scale=OPTIONS.guidance_scale,
        seed=run.seed,
    )
    done = distill(pipe, [scene.caption for scene in captions], run.directory, given)
    save(pipe, checkpoint)
    write_json(record, asdict(done))


def measure(run: Run) -> None:
    """Write the record of a row, measured on the test split."""
    pipe, configuration = run.open(), run.configuration
    maps = EvaluationOptions.map_timesteps if run == MAPPED else ()
    steps, first = configuration["num_inference_steps"], run.first_image_seed
    options = replace(OPTIONS, seed=first, num_inference_steps=steps, map_timesteps=maps)
    # Fewer steps, or other images, change nothing there.
    usual = first == 0 and all(configuration[key] == SETTINGS[key] for key in SETTINGS)
    held_out = encode_test(pipe) if usual else None
    scenes = list(ScenesDataset("test", size=configuration["images"]))
    subjects = Subjects.of_scenes(scenes, held_out)
    evaluation = evaluate(pipe, subjects, options, load_judge(judge_path()))
    results, seeds = evaluation.to_json_dict(), {"images": first, "held_out": 0}
    if run.is_distilled:
        results["training"] = read_json(run.directory / "distillation.json")
        seeds["training"] = run.seed
    if not run.is_trained and {"calibration", "bypass"} & configuration.keys():
        results["method"] = get_attached(pipe).config.to_json_dict()
    if run.is_trained:
        results |= _training(run, held_out)
        seeds["training"] = run.seed
    record = make_record("experiment", configuration, results, seeds=seeds)
    if run in SHEETS:
        (model,) = evaluation.models.values()
        # An earlier run's sheet is tracked: written before the record is made, it would be dirty.
        write_sheet(run, model.images)
    print(write_record(record, run.record))


def write_sheet(run: Run, images: Sequence[Image.Image]) -> None:
    """Write a row's first images beside its record."""
    with replacing_file(run.record.with_suffix(".png")) as temporary:
        tile(images[:_SHOWN]).save(temporary, format="png")


def paint_sheet(run: Run) -> None:
    """Write the sheet of a row that was measured without one."""
    options = replace(OPTIONS, num_inference_steps=run.configuration["num_inference_steps"])
    captions = [scene.caption for scene in ScenesDataset("test", size=_SHOWN)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        write_sheet(run, generate_images(run.open(), captions, **options.generation))


def _training(run: Run, data: EncodedDataset) -> dict[str, Any]:
    """The sections of a trained row that training decides."""
    training = read_json(run.directory / "training_record.json")
    training.pop("recipe")
    method = run.recipe.method
    if not isinstance(method, DiffCRConfig):
        return {"training": training}
    history = read_history(run.directory / "history.jsonl")
    trajectory = Trajectory.of(history, method.target_compression_ratio).to_json_dict()
    by_products = sorted((run.directory / "by-products").glob("ratio-*"))
    return {
        "training": training,
        "trajectory": trajectory,
        "by_products": [_by_product(directory, data) for directory in by_products],
    }


def _by_product(directory: Path, data: EncodedDataset) -> dict[str, Any]:
    """Ratios and held-out loss of a checkpoint on the way."""
    pipe = load_result(directory)
    loss = held_out_loss(pipe, data, OPTIONS.held_out_regions, OPTIONS.held_out_samples)
    return {
        "compression": Compression.of(get_compressor(pipe)).to_json_dict(),
        "held_out_loss": {"compressed": loss.to_json_dict()},
    }


def encode_test(pipe: Any) -> EncodedDataset:
    """The pictures of the test, encoded once for all rows."""
    test = ScenesDataset("test", size=TEST_IMAGES)
    return encode_dataset(pipe, test, RUNS / "encoded", text_tokens(pipe))


def encode_data() -> None:
    """Encode the pictures of training and of the test once, for all rows."""
    pipe, settings = load_default_pipeline(), Run("dense").recipe.data
    encode_dataset(pipe, open_dataset(settings), RUNS / "encoded", settings.max_sequence_length)
    encode_test(pipe)


def run_side_by_side(
    commands: Mapping[str, Sequence[str]], jobs: int, logs: Path
) -> dict[str, Path]:
    """Run Python commands, `jobs` at a time, the first ones first.

    Args:
        commands: Arguments of the interpreter, by the name of the row.
        jobs: Processes at a time; they share the cores that OMP_NUM_THREADS leaves open.
        logs: Directory that each command's output is written to, as NAME.log.

    Returns:
        The logs of those that failed, by name.
    """
    logs.mkdir(parents=True, exist_ok=True)
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    environment = {"OMP_NUM_THREADS": threads, **os.environ}

    def run(name: str, command: Sequence[str]) -> int:
        with (logs / f"{name}.log").open("w") as log:
            given = [sys.executable, *command]
            return subprocess.run(given, stdout=log, stderr=log, env=environment).returncode

    failed = {}
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(run, name, command): name for name, command in commands.items()}
        for done in tqdm(as_completed(running), total=len(running), unit=" rows"):
            if done.result():
                failed[running[done]] = logs / f"{running[done]}.log"
    return failed


def say_what_failed(failed: Mapping[str, Path]) -> None:
    """One line and exit code 1, where there is something to say."""
    if failed:
        sys.exit("failed: " + ", ".join(f"{name} ({log})" for name, log in failed.items()))


def main() -> None:
    """The command line."""
    names = all_names()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train-only", action="store_true")
    parser.add_argument("--sheets", action="store_true", help="paint those that figures lack")
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--jobs", type=int, default=1, metavar="N")
    arguments = parser.parse_args()
    if arguments.sheets:
        for run in SHEETS:
            if not run.record.with_suffix(".png").exists():
                paint_sheet(run)
        return
    asked = [Run(name, seed) for seed in arguments.seeds for name in arguments.names]
    waves = in_waves([run for run in asked if run.is_made and not run.is_current()])
    if arguments.jobs == 1:
        for run in itertools.chain(*waves):
            if run.is_distilled:
                distil(run)
            if run.is_trained:
                train(run.recipe, run.directory, arguments.eager)
            if not arguments.train_only:
                measure(run)
        return
    if any(waves):
        encode_data()
    flags = ["--train-only"] * arguments.train_only + ["--eager"] * arguments.eager
    failed: dict[str, Path] = {}
    for wave in waves:
        commands = {
            str(run): [__file__, run.name, "--seeds", str(run.seed), *flags] for run in wave
        }
        failed |= run_side_by_side(commands, arguments.jobs, RUNS / "logs")
    say_what_failed(failed)


if __name__ == "__main__":
    main()
