"""The directory of a run: which run it holds, what it logged, and what it gave.

run.json              what decides what the run computes: another one does not go on from it
history.jsonl         loss, ratios and lambda, a line per logged step
checkpoints/          for resuming (`diffcr.training.progress`); its own names alone are touched
by-products/, final/  weights (`diffcr.training.run.save_result`)
training_record.json  what was done, and on what
earlier-N/            all of this of a run that was not resumed
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from warnings import warn

import torch

from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.files import parse_json, read_json, read_text, write_json, write_text
from diffcr.hardware import hardware, library_versions
from diffcr.hosts import models_within
from diffcr.hosts.weights import Fingerprint, take_fingerprint
from diffcr.training.progress import saved_steps
from diffcr.training.recipe import TrainingRecipe
from diffcr.training.run import check_place
from diffcr.training.task import Task

# What a resumed run may change. `model` and `source` are paths: weights and data are compared.
_FREE = {"name", "model", "steps", "checkpoint_every", "log_every", "tracker"} | {
    "gradient_checkpointing",
    "compile",
    "data.source",
}
_RECORD = "training_record.json"
_OF_A_RUN = ("run.json", "history.jsonl", "checkpoints", "by-products", "final", _RECORD)


@dataclass(frozen=True)
class TrainingResult:
    """What a run gave.

    Attributes:
        directory: Where it wrote; `final/` in it holds the trained weights.
        steps: Optimiser steps done, over all resumptions.
        mean_compression_ratio: Mean of the learned ratios, in [0, 1]; None without routers.
        seconds: Spent in steps, over all resumptions.
    """

    directory: Path
    steps: int
    mean_compression_ratio: float | None
    seconds: float


class RunDirectory:
    """Where a run writes, apart from weights.

    Attributes:
        path: The directory itself.
        checkpoints: `path/checkpoints`, what a run resumes from.

    Raises:
        DiffCRError: There are checkpoints of another run and it is to go on, or something else is
            where weights are to be written.
    """

    def __init__(self, path: Path, recipe: TrainingRecipe, task: Task, resume: bool) -> None:
        self.path, self.checkpoints = path, path / "checkpoints"
        self._recipe, self._items, self._resumes = recipe, task.items, resume
        self._identity_file, self._history = path / "run.json", path / "history.jsonl"
        self._identity = _identify(recipe, task)
        for place in (path / "final", *path.glob("by-products/ratio-*")):
            check_place(place, task, recipe)
        if not (resume and self._identity_file.exists() and saved_steps(self.checkpoints)):
            return
        other = _difference(self._identity_file, self._identity)
        if other is not None:
            raise DiffCRError(
                f"{path} holds a run with {other}: give another directory, the same again, or "
                "start anew without resuming"
            )

    def begin(self, step: int) -> None:
        """Say which run it is, and drop lines of the history after `step`, from before a kill.

        A run that does not resume sets aside what another one left, as `earlier-N` in the
        directory.
        """
        if not self._resumes and saved_steps(self.checkpoints):
            self._set_aside()
        kept = [line for line in read_history(self._history) if line["step"] <= step]
        write_json(self._identity_file, self._identity)
        write_text(self._history, "".join(json.dumps(line) + "\n" for line in kept))

    def _set_aside(self) -> None:
        number = 1 + len(list(self.path.glob("earlier-*")))
        aside = self.path / f"earlier-{number}"
        aside.mkdir()
        for name in _OF_A_RUN:
            if (self.path / name).exists():
                (self.path / name).rename(aside / name)
        warn(f"what {self.path} held is in {aside}", DiffCRWarning, stacklevel=2)

    def log(self, values: dict[str, Any]) -> None:
        """Add a line to the history."""
        with self._history.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def finish(self, result: TrainingResult) -> None:
        """Write training_record.json."""
        last = self._history.read_text(encoding="utf-8").splitlines()[-1:]
        write_json(
            self.path / _RECORD,
            {
                "recipe": self._recipe.to_json_dict(),
                "steps": result.steps,
                "seconds": result.seconds,
                "mean_compression_ratio": result.mean_compression_ratio,
                "last_history_line": last[0] if last else None,
                "items": self._items,
                "versions": library_versions(),
                "hardware": hardware(),
            },
        )


def read_history(path: Path) -> list[dict[str, Any]]:
    """Lines of a history; a last line that a kill cut short is left out.

    Raises:
        DiffCRError: Another line is damaged.
    """
    if not path.exists():
        return []
    lines = read_text(path).split("\n")
    return [_read_line(path, number, line) for number, line in enumerate(lines[:-1], 1) if line]


def _read_line(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        values = parse_json(line)
        if isinstance(values["step"], int):
            return dict(values)
        reason = "'step' is no integer"
    except (ValueError, TypeError, KeyError) as error:
        reason = str(error)
    raise DiffCRError(f"{path}, line {number} is damaged ({reason}): take it out, or copy it again")


def _identify(recipe: TrainingRecipe, task: Task) -> dict[str, Any]:
    """What decides what a run computes, for JSON: the recipe's settings by dotted key; a hash of
    which item has which caption and of which are drawn together; some of the encoded values, which
    differ in their last bits from machine to machine; fingerprints of the models that are called,
    None for one without data (meta device)."""
    data = task.pictures
    digest = hashlib.sha256()
    for part in data.identity():
        digest.update(part)
    for group in task.groups:
        digest.update(group.numpy().tobytes())
    bases = [take_fingerprint(model) for model in models_within(task.model)]
    return {
        "settings": {k: v for k, v in _flatten(recipe.to_json_dict(), "") if k not in _FREE},
        "captions": digest.hexdigest(),
        "values": data.sampled_values(),
        "bases": [
            base
            and {
                "id": base.model_id,
                "config_hash": base.config_hash,
                "weights": base.weights.tolist(),
            }
            for base in bases
        ],
    }


def _difference(file: Path, present: dict[str, Any]) -> str | None:
    """What is different in the run that a file identifies, for people; None for the same run."""
    before = read_json(file)
    try:
        return _compare(before, present)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise DiffCRError(
            f"{file} is damaged ({type(error).__name__}: {error}): copy it again"
        ) from error


def _compare(before: dict[str, Any], present: dict[str, Any]) -> str | None:
    for name, value in sorted(before["settings"].items()):
        if value != present["settings"].get(name, value):
            return f"{name} {value!r}, not {present['settings'][name]!r}"
    first, second = (torch.tensor(run["values"]) for run in (before, present))
    same = before["captions"] == present["captions"] and first.shape == second.shape
    if not (same and torch.allclose(first, second, rtol=1e-2, atol=1e-2)):
        return "other data"
    for bases in zip(before["bases"], present["bases"], strict=True):
        if None not in bases:
            base, own = (
                Fingerprint(b["id"], b["config_hash"], torch.tensor(b["weights"])) for b in bases
            )
            if not base.matches(own):
                return f"another base model ({base.describe()})"
    return None


def _flatten(values: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
