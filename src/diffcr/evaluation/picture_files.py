"""Pictures of a list of prompts as files: each is written when it is made, by any number of
processes, and a run that was interrupted goes on with those that are missing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from PIL import Image
from torch import nn
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from diffcr.binding.model import get_attached, is_attached
from diffcr.errors import DiffCRError
from diffcr.evaluation.generate import Generation, check_prompts, generate_batch, generating
from diffcr.files import read_json, replacing_file, write_json
from diffcr.hosts import find_transformer
from diffcr.methods.registry import config_from_json_dict
from diffcr.training.data.encoding import weight_samples

_IDENTITY_FILE = "generation.json"


@dataclass(frozen=True)
class PictureFiles(Sequence[Image.Image]):
    """Pictures in a directory, `PREFIX-0000.png` and so on, which are read when they are asked for.

    Attributes:
        directory: Where they are, or are to be.
        total: How many.
        prefix: Of their names.
    """

    directory: Path
    total: int
    prefix: str = "image"

    def path(self, index: int) -> Path:
        """Of a picture; names are in the order of the numbers."""
        digits = max(4, len(str(self.total - 1)))
        return self.directory / f"{self.prefix}-{index:0{digits}d}.png"

    @property
    def paths(self) -> list[Path]:
        """Of all pictures."""
        return [self.path(index) for index in range(self.total)]

    def __len__(self) -> int:
        return self.total

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> list[Image.Image]: ...
    def __getitem__(self, index: int | slice) -> Image.Image | list[Image.Image]:
        if isinstance(index, slice):
            return [self[number] for number in range(self.total)[index]]
        with Image.open(self.path(range(self.total)[index])) as opened:
            return opened.convert("RGB")


def begin_pictures(files: PictureFiles, identity: dict[str, Any], anew: bool = False) -> None:
    """Say what the pictures of a directory are; one process does before any generates.

    Args:
        files: Which.
        identity: What decides what they are, as `identify_generation` gives it.
        anew: Delete those that are there instead of going on with them.

    Raises:
        DiffCRError: There are pictures that something else decided.
    """
    file = files.directory / _IDENTITY_FILE
    wanted = json.loads(json.dumps(identity))
    present = [path for path in files.paths if path.exists()]
    if anew:
        for path in present:
            path.unlink()
    elif present:
        found = read_json(file) if file.exists() else {}
        if "method" in found:
            found["method"] = _with_defaults(found["method"])
        other = next((n for n in sorted(wanted) if found.get(n) != wanted[n]), None)
        if other is not None:
            known = f"with {other} {found.get(other)!r}, not {wanted[other]!r}"
            raise DiffCRError(
                f"{present[0]} exists and was made {known if found else 'by another command'}: "
                "give another --output, or --force to overwrite"
            )
    write_json(file, wanted)


def _with_defaults(method: Any) -> Any:
    """A method as `identify_generation` describes it, with the settings that came later than its
    pictures; as it is where it is none."""
    try:
        beside = {name: method[name] for name in ("enabled", "beneath") if name in method}
        own = {name: value for name, value in method.items() if name not in beside}
        return json.loads(json.dumps(config_from_json_dict(own).to_json_dict())) | beside
    except (AttributeError, TypeError, DiffCRError):
        return method


def identify_generation(
    pipe: Any, prompts: Sequence[str], generation: Generation, **further: Any
) -> dict[str, Any]:
    """What decides what the pictures of prompts are, for JSON.

    Args:
        pipe: A text-to-image pipeline, attached or not.
        prompts: Of all pictures.
        generation: How they are made.
        further: What else decides.
    """
    digest = hashlib.sha256()
    models = {n: part for n, part in pipe.components.items() if isinstance(part, nn.Module)}
    for _, model in sorted(models.items()):
        for values in weight_samples(model):
            digest.update(values)
    transformer = find_transformer(pipe)
    method: dict[str, Any] = {"method": "dense"}
    if is_attached(transformer):
        attached = get_attached(transformer)
        method = attached.config.to_json_dict() | {"enabled": attached.enabled}
        beneath = [{**m.config.to_json_dict(), "enabled": m.enabled} for m in attached.stack()][1:]
        if beneath:
            method["beneath"] = beneath
        digest.update(json.dumps(attached.describe(), sort_keys=True, default=str).encode())
    texts = hashlib.sha256(json.dumps(list(prompts)).encode()).hexdigest()
    return {
        "prompts": len(prompts),
        "prompts_sha256": texts,
        **vars(generation),
        "scheduler": type(pipe.scheduler).__name__,
        "method": method,
        "weights": digest.hexdigest()[:16],
        **further,
    }


def generate_pictures(
    pipe: Any,
    prompts: Sequence[str],
    files: PictureFiles,
    generation: Generation,
    process: int = 0,
    processes: int = 1,
    progress: str | None = None,
) -> None:
    """Make the pictures of one of several processes that are missing.

    Batches are the same whatever the number of processes and whatever is there already, so that
    every picture is the same, too.

    Args:
        pipe: A text-to-image pipeline.
        prompts: Of all pictures.
        files: Where to.
        generation: How.
        process: Number of this one, from 0; it makes the batches that leave it as remainder.
        processes: How many there are.
        progress: Text beside a progress bar; None shows none.

    Raises:
        DiffCRError: There are no prompts.
    """
    check_prompts(prompts)
    paths, size = files.paths, generation.batch_size
    starts = range(process * size, len(prompts), processes * size)
    own = sum(len(paths[start : start + size]) for start in starts)
    bar = tqdm(total=own, desc=progress, unit="image", disable=progress is None or process > 0)
    with generating(pipe), bar:
        for start in starts:
            batch = slice(start, start + size)
            if not all(path.exists() for path in paths[batch]):
                images = generate_batch(pipe, prompts[batch], start, generation)
                for image, path in zip(images, paths[batch], strict=True):
                    _write_missing(image, path)
            bar.update(len(paths[batch]))


def _write_missing(image: Image.Image, path: Path) -> None:
    if not path.exists():
        with replacing_file(path) as temporary:
            image.save(temporary, format="PNG")
