"""Which run a directory holds, so that another one does not go on from its checkpoints."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.files import read_json, write_json
from diffcr.hosts import models_within
from diffcr.hosts.weights import Fingerprint, take_fingerprint
from diffcr.training.recipe import TrainingRecipe
from diffcr.training.task import Task

_FILE = "run.json"
# What a resumed run may change. `model` and `source` are paths: weights and data are compared.
_FREE = {"name", "model", "steps", "checkpoint_every", "log_every", "tracker"} | {
    "gradient_checkpointing",
    "compile",
    "data.source",
}
_SAMPLED = 64


@dataclass(frozen=True)
class RunIdentity:
    """What decides what a run computes.

    Attributes:
        settings: Of the recipe, by dotted key.
        captions: Hash of which item has which caption, and of how many tokens are masked in it.
        values: Some of the encoded data's, which differ in their last bits from machine to machine.
        bases: Of the models that are called, as they came; None for one without data.
    """

    settings: dict[str, Any]
    captions: str
    values: list[float]
    bases: list[Fingerprint | None]

    @classmethod
    def of(cls, recipe: TrainingRecipe, task: Task) -> RunIdentity:
        """Of a run that is about to begin."""
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
        """Raises DiffCRError where the directory holds checkpoints of another run."""
        path = directory / _FILE
        if not path.exists() or not list(directory.glob("checkpoints/step-*")):
            return
        present = read_json(path)
        other = self._difference(present)
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
        write_json(directory / _FILE, {**vars(self), "bases": bases})


def _sample(tensor: Tensor) -> list[float]:
    values: list[float] = tensor.flatten()[:: tensor.numel() // _SAMPLED + 1].tolist()
    return values


def _flatten(values: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
