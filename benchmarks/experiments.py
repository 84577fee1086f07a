"""Train and measure the rows of the comparison: `python benchmarks/experiments.py [NAME ...]`.

A row is a file in `benchmarks/experiments/`: what it changes in the shipped recipe. It is trained
once per seed, into `runs/experiments/NAME-seed-S/`, and measured, into
`benchmarks/results/experiments/NAME-seed-S.json` with a sheet of its first images beside it. What
is there already, of the same recipe, is not done again; what was interrupted goes on.

A row that goes on from a checkpoint of another row's run comes after it.

With --eager nothing is compiled: on a GPU these small models take less time to train than to
compile. With --jobs N so many rows run at a time, each in a process of its own, whose output is in
`runs/experiments/logs/`; their seconds are then no measure of speed.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

from measuring import (
    RECORDS,
    ROOT,
    SETTINGS,
    load_test_set,
    measure_held_out,
    measure_pipeline,
    write_row,
)
from side_by_side import run_side_by_side, say_what_failed

import diffcr
from diffcr.binding.lora import load_lora, read_lora
from diffcr.binding.model import get_compressor
from diffcr.cost.sections import compression_section, trajectory_section
from diffcr.errors import DiffCRError
from diffcr.files import read_json
from diffcr.methods.diffcr.config import DiffCRConfig
from diffcr.pretrained import load_default_pipeline
from diffcr.records.record import read_record
from diffcr.training.data.encoding import EncodedDataset, encode_dataset, open_dataset
from diffcr.training.history import read_history
from diffcr.training.job import run_recipe
from diffcr.training.recipe.file import find_recipe, load_recipe, recipe_from_dict
from diffcr.training.recipe.recipe import TrainingRecipe

EXPERIMENTS = ROOT / "benchmarks" / "experiments"
RUNS = ROOT / "runs" / "experiments"


Row = tuple[str, int]


def experiment_recipe(name: str, seed: int) -> TrainingRecipe:
    """The recipe of one run."""
    shipped = load_recipe(find_recipe("scenes-diffcr-lt")).to_json_dict()
    changes = read_json(EXPERIMENTS / f"{name}.json")
    values = {**changed(shipped, changes), "name": f"{name}-seed-{seed}", "seed": seed}
    values["checkpoint"] = values["checkpoint"].format(seed=seed)
    return recipe_from_dict(values, f"{name}.json")


def changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`values` with those of `changes`; another method replaces the method whole."""
    result = dict(values)
    for key, value in changes.items():
        merges = isinstance(value, dict) and "method" not in value
        result[key] = changed(values[key], value) if merges else value
    return result


def starting_row(name: str, seed: int) -> Row | None:
    """The row whose run holds the checkpoint that a row goes on from."""
    checkpoint = Path(experiment_recipe(name, seed).checkpoint)
    if not checkpoint.parts:
        return None
    run = checkpoint.relative_to(RUNS.relative_to(ROOT)).parts[0]
    return run.rpartition("-seed-")[0], seed


def in_waves(rows: list[Row]) -> list[list[Row]]:
    """Rows to run, with those before that others of them go on from and whose runs are not here."""
    starts = [start for row in rows if (start := starting_row(*row))]
    missing = [s for s in starts if s not in rows and not (RUNS / "{}-seed-{}".format(*s)).exists()]
    first = [*dict.fromkeys(missing), *(row for row in rows if starting_row(*row) is None)]
    return [first, [row for row in rows if row not in first]]


def is_current(recipe: TrainingRecipe) -> bool:
    """Whether there is a record of this very recipe, measured with these settings."""
    target = RECORDS / f"{recipe.name}.json"
    if not target.exists():
        return False
    settings = dict(read_record(target).configuration)
    # Settings that came later had their defaults then.
    measured = recipe_from_dict({**settings.pop("recipe"), "name": recipe.name}, str(target))
    return settings == SETTINGS and _described(measured) == _described(recipe)


def _described(recipe: TrainingRecipe) -> dict[str, Any]:
    """The recipe without what changes no result, or its rounding alone."""
    without = {"name", "model", "compile"}
    if not isinstance(recipe.method, DiffCRConfig):
        without.add("ratio_loss")
    return {key: value for key, value in recipe.to_json_dict().items() if key not in without}


def train(recipe: TrainingRecipe) -> Path:
    """The directory of the run, trained to its end.

    Raises:
        DiffCRError: Another recipe was trained there.
    """
    run = RUNS / recipe.name
    if not (run / "training_record.json").exists():
        run_recipe(recipe, run)
    trained = recipe_from_dict(read_json(run / "training_record.json")["recipe"], str(run))
    if _described(trained) != _described(recipe):
        raise DiffCRError(f"{run} was trained with another recipe: remove it to train anew")
    return run


def load_result(directory: Path) -> Any:
    """The embedded pipeline with what a run wrote."""
    pipe = load_default_pipeline()
    if (directory / "diffcr_config.json").exists():
        diffcr.load(pipe, directory)
    elif (directory / "adapter").exists():
        load_lora(pipe.transformer, read_lora(directory / "adapter"))
    else:
        dense = type(pipe.transformer).from_pretrained(directory / "transformer").eval()
        pipe.transformer = dense.to(pipe.transformer.device)
    return pipe


def measure(run: Path, recipe: TrainingRecipe) -> None:
    """Write the record of what a run gave, measured on the test split."""
    pipe = load_result(run / "final")
    test = load_test_set(pipe)
    measured = measure_pipeline(pipe, test, SETTINGS["num_inference_steps"], recipe.name)
    results = measured.results
    results["training"] = read_json(run / "training_record.json")
    results["training"].pop("recipe")
    if isinstance(recipe.method, DiffCRConfig):
        history = read_history(run / "history.jsonl")
        target = recipe.method.target_compression_ratio
        results["trajectory"] = trajectory_section(history, target)
        results["by_products"] = _measure_by_products(run, test.encoded)
    configuration = {**SETTINGS, "recipe": _described(recipe)}
    print(write_row(recipe.name, configuration, measured, {"training": recipe.seed}))


def _measure_by_products(run: Path, data: EncodedDataset) -> list[dict[str, Any]]:
    """Held-out loss against ratio of the checkpoints on the way, from one run."""
    rows = []
    for directory in sorted((run / "by-products").glob("ratio-*")):
        pipe = load_result(directory)
        row: dict[str, Any] = {"compression": compression_section(get_compressor(pipe))}
        measure_held_out(pipe, data, row)
        rows.append(row)
    return rows


def encode_data() -> None:
    """Encode the pictures of training and of the test once, for all rows."""
    pipe = load_default_pipeline()
    settings = experiment_recipe("dense", 0).data
    encode_dataset(pipe, open_dataset(settings), RUNS / "encoded", settings.max_sequence_length)
    load_test_set(pipe)


def main() -> None:
    """The command line."""
    names = sorted(path.stem for path in EXPERIMENTS.glob("*.json"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train-only", action="store_true")
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--jobs", type=int, default=1, metavar="N")
    arguments = parser.parse_args()
    rows = [(name, seed) for seed in arguments.seeds for name in arguments.names]
    waves = in_waves([row for row in rows if not is_current(experiment_recipe(*row))])
    if arguments.jobs == 1:
        for name, seed in itertools.chain(*waves):
            recipe = experiment_recipe(name, seed)
            run = train(replace(recipe, compile=recipe.compile and not arguments.eager))
            if not arguments.train_only:
                measure(run, recipe)
        return
    if any(waves):
        encode_data()
    flags = ["--train-only"] * arguments.train_only + ["--eager"] * arguments.eager
    failed: dict[str, Path] = {}
    for wave in waves:
        commands = {
            f"{name}-seed-{seed}": [__file__, name, "--seeds", str(seed), *flags]
            for name, seed in wave
        }
        failed |= run_side_by_side(commands, arguments.jobs, RUNS / "logs")
    say_what_failed(failed)


if __name__ == "__main__":
    main()
