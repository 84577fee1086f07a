"""Which run a directory holds, so that another one does not go on from its checkpoints."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffcr.errors import DiffCRError
from diffcr.files import read_json, write_json
from diffcr.training.data import EncodedDataset
from diffcr.training.recipe import TrainingRecipe

_FILE = "run.json"
# What a resumed run may change; `model` is a path, the data holds what it encodes.
_FREE = ("name", "model", "steps", "checkpoint_every", "log_every", "tracker")


@dataclass(frozen=True)
class RunIdentity:
    """Settings and data that decide what a run computes.

    Attributes:
        settings: Of the recipe, by dotted key, and `data.contents`, a hash of the encoded data.
    """

    settings: dict[str, Any]

    @classmethod
    def of(cls, recipe: TrainingRecipe, dataset: EncodedDataset) -> RunIdentity:
        """Of a run that is about to begin."""
        values = {k: v for k, v in recipe.to_json_dict().items() if k not in _FREE}
        digest = hashlib.sha256(str(tuple(dataset.latents.shape)).encode())
        for tensor in (dataset.latents, dataset.prompt_embeds):
            digest.update(tensor.flatten()[:: tensor.numel() // 4096 + 1].numpy().tobytes())
        contents = digest.hexdigest()[:16]
        return cls({**dict(_flatten(values, "")), "data.contents": contents})

    def check(self, directory: Path) -> None:
        """Raises DiffCRError where the directory holds a run with other settings or data."""
        path = directory / _FILE
        if not path.exists():
            return
        present = read_json(path)
        for name in sorted({*present, *self.settings}):
            before, asked = present.get(name), self.settings.get(name)
            if before != asked:
                raise DiffCRError(
                    f"{directory} holds a run with {name} {before!r}, not {asked!r}: "
                    "give another directory, or the settings of that run"
                )

    def write(self, directory: Path) -> None:
        """Say which run the directory holds."""
        write_json(directory / _FILE, self.settings)


def _flatten(values: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
