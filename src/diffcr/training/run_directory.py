"""The directory of a run: which run it holds, and the history of what it logged.

run.json         what decides what the run computes, so that another one does not go on from it
history.jsonl    loss, ratios and lambda, a line per logged step
checkpoints/     for resuming (`diffcr.training.progress`)
by-products/, final/, training_record.json    what the run gives (`diffcr.training.loop`)
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

_IDENTITY_FILE = "run.json"
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


@dataclass(frozen=True)
class RunIdentity:
    """What decides what a run computes.

    Attributes:
        settings: The recipe's values by dotted key, without those that a resumed run may change.
        captions: SHA-256 of which item has which caption, and of which items are drawn together.
        values: Some latents and embeddings, which differ in their last bits from machine to
            machine: compared within 1e-2.
        bases: Fingerprints of the models that are called, as they came; None for a model without
            data (meta device).
    """

    settings: dict[str, Any]
    captions: str
    values: list[float]
    bases: list[Fingerprint | None]

    @classmethod
    def of(cls, recipe: TrainingRecipe, task: Task) -> RunIdentity:
        """The identity of a run that is about to begin."""
        dataset = task.pictures
        settings = {k: v for k, v in _flatten(recipe.to_json_dict(), "") if k not in _FREE}
        digest = hashlib.sha256(str(tuple(dataset.latents.shape)).encode())
        for tensor in (dataset.caption_of, dataset.prompt_masks):
            digest.update(tensor.numpy().tobytes())
        for group in task.groups:
            digest.update(group.numpy().tobytes())
        values = [*_sample(dataset.latents), *_sample(dataset.prompt_embeds)]
        bases = [take_fingerprint(model) for model in models_within(task.model)]
        return cls(settings, digest.hexdigest(), values, bases)

    def check(self, directory: Path) -> None:
        """Raises DiffCRError where `write` said another run of the directory."""
        other = self._difference(read_json(directory / _IDENTITY_FILE))
        if other is not None:
            raise DiffCRError(
                f"{directory} holds a run with {other}: give another directory, or the same again"
            )

    def _difference(self, present: dict[str, Any]) -> str | None:
        settings = present["settings"]
        for name in sorted({*settings}.intersection(self.settings)):
            if settings[name] != self.settings[name]:
                return f"{name} {settings[name]!r}, not {self.settings[name]!r}"
        before = torch.tensor(present["values"])
        if present["captions"] != self.captions or not torch.allclose(
            before, torch.tensor(self.values), rtol=1e-2, atol=1e-2
        ):
            return "other data"
        for values, own in zip(present["bases"], self.bases, strict=True):
            if values is None or own is None:
                continue
            base = Fingerprint(values["id"], values["config_hash"], torch.tensor(values["weights"]))
            if not base.matches(own):
                return f"another base model ({base.describe()})"
        return None

    def write(self, directory: Path) -> None:
        """Say which run the directory holds."""
        bases = [
            base
            and {
                "id": base.model_id,
                "config_hash": base.config_hash,
                "weights": base.weights.tolist(),
            }
            for base in self.bases
        ]
        write_json(directory / _IDENTITY_FILE, {**vars(self), "bases": bases})


def _sample(tensor: Tensor) -> list[float]:
    values: list[float] = tensor.flatten()[:: tensor.numel() // _SAMPLED + 1].tolist()
    return values


def _flatten(values: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


class RunDirectory:
    """Where a run writes, apart from weights.

    Args:
        path: Of the directory.
        identity: Of the run.
        resume: Whether checkpoints there are gone on from; an error if not.

    Attributes:
        path: Of the directory.
        checkpoints: Directory of the checkpoints to resume from.

    Raises:
        DiffCRError: The directory holds checkpoints of another run, or any without `resume`.
    """

    def __init__(self, path: Path, identity: RunIdentity, resume: bool) -> None:
        self.path, self.checkpoints = path, path / "checkpoints"
        self._identity, self._history = identity, path / "history.jsonl"
        if not resume and self.checkpoints.exists():
            raise DiffCRError(f"{path} holds another run: resume it or give another directory")
        if (path / _IDENTITY_FILE).exists() and list(self.checkpoints.glob("step-*")):
            identity.check(path)

    def begin(self, step: int) -> None:
        """Say which run it is, and drop lines of the history after `step`, from before a kill."""
        self._identity.write(self.path)
        kept = [line for line in read_history(self._history) if line["step"] <= step]
        write_text(self._history, "".join(json.dumps(line) + "\n" for line in kept))

    def log(self, values: dict[str, Any]) -> None:
        """Add a line to the history."""
        with self._history.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def finish(self, recipe: TrainingRecipe, result: TrainingResult, items: int) -> None:
        """Write training_record.json: what was done with how many items, and what it gave."""
        last = self._history.read_text(encoding="utf-8").splitlines()[-1:]
        write_json(
            self.path / "training_record.json",
            {
                "recipe": recipe.to_json_dict(),
                "steps": result.steps,
                "seconds": result.seconds,
                "mean_compression_ratio": result.mean_compression_ratio,
                "last_history_line": last[0] if last else None,
                "items": items,
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
