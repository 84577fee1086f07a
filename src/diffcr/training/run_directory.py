"""The directory of a run: which run it holds, what it logged, and what it gave.

run.json              what decides what the run computes: another one does not go on from it
history.jsonl         loss, ratios and lambda, a line per logged step
checkpoints/          for resuming (`diffcr.training.progress`)
by-products/, final/  weights (`diffcr.training.run.save_result`)
training_record.json  what was done, and on what
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.files import read_json, write_json, write_text
from diffcr.hardware import hardware, library_versions
from diffcr.hosts import models_within
from diffcr.hosts.weights import Fingerprint, take_fingerprint
from diffcr.training.recipe import TrainingRecipe
from diffcr.training.task import Task

# What a resumed run may change. `model` and `source` are paths: weights and data are compared.
_FREE = {"name", "model", "steps", "checkpoint_every", "log_every", "tracker"} | {
    "gradient_checkpointing",
    "compile",
    "data.source",
}
_SAMPLED = 64


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
        DiffCRError: There are checkpoints of another run, or any without `resume`.
    """

    def __init__(self, path: Path, recipe: TrainingRecipe, task: Task, resume: bool) -> None:
        self.path, self.checkpoints = path, path / "checkpoints"
        self._recipe, self._items = recipe, task.items
        self._identity_file, self._history = path / "run.json", path / "history.jsonl"
        self._identity = _identify(recipe, task)
        if not resume and self.checkpoints.exists():
            raise DiffCRError(f"{path} holds another run: resume it or give another directory")
        if not (self._identity_file.exists() and list(self.checkpoints.glob("step-*"))):
            return
        other = _difference(read_json(self._identity_file), self._identity)
        if other is not None:
            raise DiffCRError(
                f"{path} holds a run with {other}: give another directory, or the same again"
            )

    def begin(self, step: int) -> None:
        """Say which run it is, and drop lines of the history after `step`, from before a kill."""
        write_json(self._identity_file, self._identity)
        kept = [line for line in read_history(self._history) if line["step"] <= step]
        write_text(self._history, "".join(json.dumps(line) + "\n" for line in kept))

    def log(self, values: dict[str, Any]) -> None:
        """Add a line to the history."""
        with self._history.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def finish(self, result: TrainingResult) -> None:
        """Write training_record.json."""
        last = self._history.read_text(encoding="utf-8").splitlines()[-1:]
        write_json(
            self.path / "training_record.json",
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
    """Lines of a history; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def _identify(recipe: TrainingRecipe, task: Task) -> dict[str, Any]:
    """What decides what a run computes, for JSON: the recipe's settings by dotted key; a hash of
    which item has which caption and of which are drawn together; some of the encoded values, which
    differ in their last bits from machine to machine; fingerprints of the models that are called,
    None for one without data (meta device)."""
    data = task.pictures
    digest = hashlib.sha256(str(tuple(data.latents.shape)).encode())
    for tensor in (data.caption_of, data.prompt_masks, *task.groups):
        digest.update(tensor.numpy().tobytes())
    bases = [take_fingerprint(model) for model in models_within(task.model)]
    return {
        "settings": {k: v for k, v in _flatten(recipe.to_json_dict(), "") if k not in _FREE},
        "captions": digest.hexdigest(),
        "values": [*_sample(data.latents), *_sample(data.prompt_embeds)],
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


def _difference(before: dict[str, Any], present: dict[str, Any]) -> str | None:
    for name, value in sorted(before["settings"].items()):
        if value != present["settings"].get(name, value):
            return f"{name} {value!r}, not {present['settings'][name]!r}"
    first, second = (torch.tensor(run["values"]) for run in (before, present))
    same_captions = before["captions"] == present["captions"]
    if not (same_captions and torch.allclose(first, second, rtol=1e-2, atol=1e-2)):
        return "other data"
    for bases in zip(before["bases"], present["bases"], strict=True):
        if None not in bases:
            base, own = (
                Fingerprint(b["id"], b["config_hash"], torch.tensor(b["weights"])) for b in bases
            )
            if not base.matches(own):
                return f"another base model ({base.describe()})"
    return None


def _sample(tensor: Tensor) -> list[float]:
    values: list[float] = tensor.flatten()[:: tensor.numel() // _SAMPLED + 1].tolist()
    return values


def _flatten(values: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
