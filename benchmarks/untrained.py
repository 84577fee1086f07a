"""Measure rows that need no training: `python benchmarks/untrained.py [NAME ...]`.

A row is a file in `benchmarks/untrained/`: the embedded pipeline as it was pretrained, with a
training-free method attached, or with fewer denoising steps; or what a run of
`benchmarks/experiments.py` left on its way to a larger ratio ("checkpoint", below
`runs/experiments/`). Its record is `benchmarks/results/experiments/NAME-seed-0.json`; what is there
already is not measured again. With --jobs N so many rows run at a time, each in a process of its
own, whose output is in `runs/experiments/logs/`.
"""

from __future__ import annotations

import argparse
from typing import Any

from experiments import RUNS, load_result
from measuring import RECORDS, ROOT, SETTINGS, load_test_set, measure_pipeline, write_row
from side_by_side import run_side_by_side, say_what_failed

from diffcr.binding.attachment import attach
from diffcr.errors import DiffCRError
from diffcr.files import read_json
from diffcr.methods.config import DenseConfig
from diffcr.methods.registry import config_from_json_dict
from diffcr.pretrained import load_default_pipeline
from diffcr.records.record import read_record

ROWS = ROOT / "benchmarks" / "untrained"


def row_configuration(name: str) -> dict[str, Any]:
    """The settings of all rows with the row's own, its method in full."""
    row = read_json(ROWS / f"{name}.json")
    if "checkpoint" in row:
        return {**SETTINGS, **row}
    row = {"method": {"method": DenseConfig.method}, **row}
    method = config_from_json_dict(row["method"])
    return {**SETTINGS, **row, "method": method.to_json_dict()}


def is_current(name: str) -> bool:
    """Whether there is a record of this very row."""
    target = RECORDS / f"{name}-seed-0.json"
    return target.exists() and read_record(target).configuration == row_configuration(name)


def open_row(configuration: dict[str, Any]) -> Any:
    """The embedded pipeline as the row wants it.

    Raises:
        DiffCRError: The run that its checkpoint is from was not trained here.
    """
    if "checkpoint" in configuration:
        checkpoint = RUNS / configuration["checkpoint"]
        if not checkpoint.is_dir():
            raise DiffCRError(f"{checkpoint} is missing: train it with benchmarks/experiments.py")
        return load_result(checkpoint)
    pipe = load_default_pipeline()
    method = config_from_json_dict(configuration["method"])
    if not isinstance(method, DenseConfig):
        attach(pipe, method)
    return pipe


def measure(name: str) -> None:
    """Write the row's record."""
    configuration = row_configuration(name)
    pipe = open_row(configuration)
    steps = configuration["num_inference_steps"]
    # Its timesteps are its own: fewer steps change nothing there.
    held_out = steps == SETTINGS["num_inference_steps"]
    measured = measure_pipeline(pipe, load_test_set(pipe), steps, name, held_out)
    print(write_row(f"{name}-seed-0", configuration, measured, seeds={}))


def main() -> None:
    """The command line."""
    names = sorted(path.stem for path in ROWS.glob("*.json"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--jobs", type=int, default=1, metavar="N")
    arguments = parser.parse_args()
    wanted = [name for name in arguments.names if not is_current(name)]
    if arguments.jobs > 1 and wanted:
        load_test_set(load_default_pipeline())
        commands = {name: [__file__, name] for name in wanted}
        say_what_failed(run_side_by_side(commands, arguments.jobs, RUNS / "logs"))
        return
    for name in wanted:
        measure(name)


if __name__ == "__main__":
    main()
