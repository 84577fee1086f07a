"""Folders of pictures, and the scenes that are drawn when they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from PIL import Image

from diffcr.errors import DiffCRError
from diffcr.inpainting.images.pictures import open_rgb
from diffcr.scenes import ScenesDataset
from diffcr.training.data.pictures import find_picture, metadata_lines, read_entry
from diffcr.training.data.sources.item import SourceItem, unreadable


@dataclass(frozen=True)
class ScenesSource:
    """The training split of `scenes`."""

    scenes: ScenesDataset
    unit_items: int

    @property
    def units(self) -> int:
        """As in `PictureSource`."""
        return -(-len(self.scenes) // self.unit_items)

    def items(self, unit: int, start: int = 0) -> Iterator[SourceItem]:
        """As in `PictureSource`."""
        first = unit * self.unit_items
        for index in range(first + start, min(first + self.unit_items, len(self.scenes))):
            scene = self.scenes[index]
            yield SourceItem(f"scene {index}", scene.caption, partial(getattr, scene, "image"))


@dataclass(frozen=True)
class FolderSource:
    """A folder in the Hub's imagefolder convention, whose metadata is read in pieces.

    Attributes:
        path: The folder.
        unit_items: Lines of `metadata.jsonl` that make a unit.
        digest: Of `metadata.jsonl`, which identifies the contents.

    Raises:
        DiffCRError: The folder or its metadata is missing or empty.
    """

    path: Path
    unit_items: int
    digest: str = field(init=False)
    _offsets: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.path.is_dir():
            raise DiffCRError(
                f"{self.path} is neither a folder of pictures nor a tar file: give one, "
                "'scenes', or datasets:NAME"
            )
        digest, offsets, position = hashlib.sha256(), [], 0
        try:
            with self._metadata.open("rb") as file:
                for number, line in enumerate(metadata_lines(file)):
                    if number % self.unit_items == 0:
                        offsets.append(position)
                    digest.update(line)
                    position += len(line)
        except OSError as error:
            raise DiffCRError(
                f"{self._metadata} cannot be read ({error.strerror}): write one JSON object a "
                "line, file_name and text"
            ) from error
        if not offsets:
            raise DiffCRError(f"{self._metadata} is empty: name at least one picture")
        object.__setattr__(self, "digest", digest.hexdigest())
        object.__setattr__(self, "_offsets", tuple(offsets))

    @property
    def _metadata(self) -> Path:
        return self.path / "metadata.jsonl"

    @property
    def units(self) -> int:
        """As in `PictureSource`."""
        return len(self._offsets)

    def items(self, unit: int, start: int = 0) -> Iterator[SourceItem]:
        """As in `PictureSource`; a line that names no picture is an item that cannot be read."""
        return islice(self._items(unit), start, None)

    def _items(self, unit: int) -> Iterator[SourceItem]:
        with self._metadata.open("rb") as file:
            file.seek(self._offsets[unit])
            first = unit * self.unit_items + 1
            for number, line in enumerate(islice(metadata_lines(file), self.unit_items), first):
                if line.strip():
                    yield self._item(line, number)

    def _item(self, line: bytes, number: int) -> SourceItem:
        try:
            name, caption = read_entry(self._metadata, number, line)
        except DiffCRError as error:
            return unreadable(f"metadata.jsonl, line {number}", str(error))
        return SourceItem(name, caption, partial(_open, self.path, name))


def _open(folder: Path, name: str) -> Image.Image:
    return open_rgb(find_picture(folder, name))
