"""Captioned pictures: what a data set is, folders of them, and reading by several processes."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image, UnidentifiedImageError
from torch.utils.data import DataLoader

from diffcr.errors import DiffCRError
from diffcr.scenes import ScenesDataset
from diffcr.scenes.dataset import Split
from diffcr.training.recipe import DataRecipe

# With fewer pictures, starting processes takes longer than they save.
_WORTH_PROCESSES = 500
# Each holds two batches of pictures.
_MOST_PROCESSES = 8


class CaptionedImage(Protocol):
    """A picture, RGB, and its caption."""

    @property
    def image(self) -> Image.Image:
        """The picture."""
        ...

    @property
    def caption(self) -> str:
        """What it shows."""
        ...


class CaptionedImages(Protocol):
    """A data set; its `repr` identifies its contents."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> CaptionedImage: ...


@dataclass(frozen=True)
class Photograph:
    """One captioned picture of a folder."""

    image: Image.Image
    caption: str


@dataclass(frozen=True)
class ImageFolder:
    """A folder in the Hub's imagefolder convention: pictures and a `metadata.jsonl` with
    `file_name` and `text`.

    Attributes:
        path: The folder.
        resolution: Side in pixels of the square that pictures are scaled to and cropped in the
            centre of.
        size: Items, the first ones of `metadata.jsonl`; all by default.
        entries: File name and caption of every item.
        versions: Size in bytes and time of change in ns of every item's file.

    Raises:
        DiffCRError: The folder, its metadata, a caption or a picture is missing; on access, a
            picture cannot be read.
    """

    path: Path
    resolution: int
    size: int | None = None
    entries: tuple[tuple[str, str], ...] = field(init=False)
    versions: tuple[tuple[int, int], ...] = field(init=False)

    def __post_init__(self) -> None:
        entries = _read_metadata(self.path)[: self.size]
        files = [self.path / name for name, _ in entries]
        for file in files:
            if not file.is_file():
                raise DiffCRError(f"{file} is missing, metadata.jsonl names it")
        object.__setattr__(self, "entries", tuple(entries))
        # Part of what identifies the contents: a picture replaced under its name is another.
        stats = [file.stat() for file in files]
        object.__setattr__(self, "versions", tuple((s.st_size, s.st_mtime_ns) for s in stats))

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Photograph:
        name, caption = self.entries[index]
        try:
            with Image.open(self.path / name) as opened:
                image = opened.convert("RGB")
        except (OSError, UnidentifiedImageError) as error:
            raise DiffCRError(f"{self.path / name} is not a readable picture: {error}") from error
        return Photograph(_square(image, self.resolution), caption)


def _read_metadata(folder: Path) -> list[tuple[str, str]]:
    if not folder.is_dir():
        raise DiffCRError(f"{folder} is not a folder: give 'scenes' or a folder of pictures")
    metadata = folder / "metadata.jsonl"
    if not metadata.is_file():
        raise DiffCRError(f"{metadata} is missing: one JSON object a line, file_name and text")
    try:
        lines = metadata.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DiffCRError(f"{metadata} cannot be read as UTF-8: {error}") from error
    entries = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
            name, text = item["file_name"], item["text"]
            if not isinstance(name, str) or not isinstance(text, str):
                raise TypeError("both are texts")
            entries.append((name, text))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DiffCRError(
                f"{metadata}, line {number}: give an object with file_name and text ({error})"
            ) from error
    if not entries:
        raise DiffCRError(f"{metadata} is empty: name at least one picture")
    return entries


def _square(image: Image.Image, side: int) -> Image.Image:
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    resized = image.resize((width, height), Image.Resampling.LANCZOS)
    return resized.crop((left, top, left + side, top + side))


def open_dataset(recipe: DataRecipe, split: Split = "train") -> CaptionedImages:
    """The data set that a recipe names; the split is one of `scenes`.

    Raises:
        DiffCRError: As `ScenesDataset` or `ImageFolder` raises it.
    """
    if recipe.source == "scenes":
        return ScenesDataset(split, size=recipe.size, resolution=recipe.resolution)
    return ImageFolder(Path(recipe.source), recipe.resolution, recipe.size)


@dataclass(frozen=True)
class _Reported:
    """Gives an error instead of raising it: the loader would wrap it in a worker's traceback."""

    dataset: CaptionedImages

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> CaptionedImage | DiffCRError:
        try:
            return self.dataset[index]
        except DiffCRError as error:
            return error


def read_batches(dataset: CaptionedImages, batch_size: int) -> Iterator[list[CaptionedImage]]:
    """All items in order; many of them are read by forked processes, where torch has threads.

    Raises:
        DiffCRError: As an item raises it.
    """
    workers = _workers() if len(dataset) >= _WORTH_PROCESSES else 0
    items: Any = _Reported(dataset)
    loader = DataLoader(
        items,
        batch_size,
        num_workers=workers,
        prefetch_factor=1 if workers else None,
        collate_fn=list,
        # The loader draws a seed: from torch's own state it would change what a caller draws next.
        generator=torch.Generator(),
    )
    for batch in loader:
        for item in batch:
            if isinstance(item, DiffCRError):
                raise item
        yield batch


def _workers() -> int:
    # Other start methods import the caller's script again; a daemon may have no children.
    forks = multiprocessing.get_start_method() == "fork"
    threads = torch.get_num_threads()
    if not forks or multiprocessing.current_process().daemon or threads == 1:
        return 0
    return min(threads, _MOST_PROCESSES)
