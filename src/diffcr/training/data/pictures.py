"""Captioned pictures: what a data set is, folders of them, and reading by several processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader

from diffcr.errors import DiffCRError
from diffcr.files import parse_json
from diffcr.inpainting.images.pictures import open_rgb
from diffcr.scenes import ScenesDataset
from diffcr.scenes.dataset import Split
from diffcr.training.recipe import DataRecipe

# With fewer pictures, starting processes takes longer than they save.
_WORTH_PROCESSES = 500
# Each holds two batches of pictures.
_MOST_PROCESSES = 8
_LONGEST_LINE = 2**20
# Folders of repositories in the Hub's cache.
_OF_THE_HUB = ("datasets--", "models--")


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

    Pictures are turned upright as their EXIF says; palettes, greyscale, CMYK and 16-bit greyscale
    become 8-bit RGB, what is transparent is over white, and of an animation there is the first
    frame.

    Attributes:
        path: The folder.
        resolution: Side in pixels of the square that pictures are scaled to and cropped in the
            centre of.
        size: Items, the first ones of `metadata.jsonl`; all by default.
        entries: File name and caption of every item.
        versions: Size in bytes and time of change in ns of every item's file.
        reading: How files become pictures, which is part of what identifies the contents.

    Raises:
        DiffCRError: The folder, its metadata, a caption or a picture is missing, or a picture is
            outside of the folder; on access, a picture cannot be read.
    """

    path: Path
    resolution: int
    size: int | None = None
    entries: tuple[tuple[str, str], ...] = field(init=False)
    versions: tuple[tuple[int, int], ...] = field(init=False)
    reading: str = field(init=False, default="upright, over white, cropped and scaled at once")

    def __post_init__(self) -> None:
        entries = _read_metadata(self.path)[: self.size]
        files = [find_picture(self.path, name) for name, _ in entries]
        object.__setattr__(self, "entries", tuple(entries))
        # Part of what identifies the contents: a picture replaced under its name is another.
        stats = [file.stat() for file in files]
        object.__setattr__(self, "versions", tuple((s.st_size, s.st_mtime_ns) for s in stats))

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Photograph:
        name, caption = self.entries[index]
        side = (self.resolution, self.resolution)
        image = open_rgb(self.path / name)
        return Photograph(ImageOps.fit(image, side, Image.Resampling.LANCZOS), caption)


def find_picture(folder: Path, name: str) -> Path:
    """A file of a folder. In the Hub's cache a folder's files are links to where it keeps the
    contents of that repository.

    Raises:
        DiffCRError: It is missing, or outside of the folder.
    """
    file = folder / name
    # Names that the system cannot have are no files either.
    if not os.path.isfile(file):
        raise DiffCRError(f"{file} is missing, metadata.jsonl names it")
    if not any(file.resolve().is_relative_to(root) for root in _roots(folder.resolve())):
        raise DiffCRError(
            f"{file} is outside of the folder, or a link that leads out of it: copy it into the "
            "folder"
        )
    return file


def _roots(folder: Path) -> Iterator[Path]:
    """Where the files of a folder may lie."""
    yield folder
    for snapshot in (folder, *folder.parents):
        repository = snapshot.parent.parent
        if snapshot.parent.name == "snapshots" and repository.name.startswith(_OF_THE_HUB):
            # The repository's own, and what its storage servers give several repositories.
            yield from (repository / "blobs", repository.parent / "blobs")


def _read_metadata(folder: Path) -> list[tuple[str, str]]:
    if not folder.is_dir():
        raise DiffCRError(f"{folder} is not a folder: give 'scenes' or a folder of pictures")
    metadata = folder / "metadata.jsonl"
    if not metadata.is_file():
        raise DiffCRError(f"{metadata} is missing: one JSON object a line, file_name and text")
    with metadata.open("rb") as file:
        entries = [
            read_entry(metadata, number, line)
            for number, line in enumerate(metadata_lines(file), 1)
            if line.strip()
        ]
    if not entries:
        raise DiffCRError(f"{metadata} is empty: name at least one picture")
    return entries


def metadata_lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines of a `metadata.jsonl`, of which one that is too long is several."""
    return iter(lambda: file.readline(_LONGEST_LINE), b"")


def read_entry(metadata: Path, number: int, line: bytes) -> tuple[str, str]:
    """File name and caption of a line of `metadata.jsonl`.

    Raises:
        DiffCRError: It is no object with both.
    """
    try:
        if len(line) == _LONGEST_LINE:
            raise ValueError("the line is longer than 1 MiB")
        item = parse_json(line.decode("utf-8-sig"))
        name, text = item["file_name"], item["text"]
        if not isinstance(name, str) or not isinstance(text, str):
            raise TypeError("both are texts")
    except (ValueError, KeyError, TypeError) as error:
        raise DiffCRError(
            f"{metadata}, line {number}: give an object with file_name and text, in UTF-8 ({error})"
        ) from error
    return name, text


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
