"""Pictures inside of archives: webdataset's tars, and what the library `datasets` streams."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from diffcr.errors import DiffCRError, first_line
from diffcr.training.data.sources.item import (
    CAPTION_KEYS,
    SourceItem,
    caption_of,
    stored_item,
    unreadable,
)

_PICTURES = ("jpg", "jpeg", "png", "webp", "tif", "tiff", "bmp", "gif")


@dataclass(frozen=True)
class TarSource:
    """Tar files in the webdataset convention: `KEY.jpg` beside `KEY.txt`, or `KEY.json` with the
    key text or caption. A tar is a unit.

    Attributes:
        paths: The files.
        sizes: In bytes.

    Raises:
        DiffCRError: The library webdataset is missing.
    """

    paths: tuple[Path, ...]
    sizes: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        _require("webdataset")
        object.__setattr__(self, "sizes", tuple(path.stat().st_size for path in self.paths))

    @property
    def units(self) -> int:
        """As in `PictureSource`."""
        return len(self.paths)

    def items(self, unit: int, start: int = 0) -> Iterator[SourceItem]:
        """As in `PictureSource`; where a tar ends early its last item says so."""
        import tarfile

        from webdataset.tariterators import tarfile_samples

        path = self.paths[unit]
        samples = tarfile_samples([{"url": str(path.absolute())}])
        try:
            for sample in islice(samples, start, None):
                yield _tar_item(path, sample)
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:
            reason = " ".join(str(error).split())
            yield unreadable(path.name, f"{path} is damaged, what follows was not read: {reason}")


def _tar_item(path: Path, sample: dict[str, Any]) -> SourceItem:
    name = f"{path.name}/{sample['__key__']}"
    picture = next((sample[ending] for ending in _PICTURES if ending in sample), None)
    if picture is None:
        return unreadable(name, "there is no picture of that name in the tar")
    try:
        caption = _tar_caption(sample)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        return unreadable(name, f"its caption is no text: {error}")
    return stored_item(name, caption, picture)


def _tar_caption(sample: dict[str, Any]) -> object:
    if "txt" in sample:
        return sample["txt"].decode("utf-8").strip()
    described = json.loads(sample.get("json", b"{}"))
    return caption_of(described) if isinstance(described, dict) else None


@dataclass(frozen=True)
class StreamedSource:
    """A data set of the library `datasets`, streamed; one of its shards is a unit.

    Attributes:
        name: What `datasets.load_dataset` takes.
        split: Of the data set.
        stream: Its `IterableDataset`, with pictures as they are stored.
        picture: Column of the pictures.
    """

    name: str
    split: str
    stream: Any = field(repr=False)
    picture: str

    @property
    def units(self) -> int:
        """As in `PictureSource`."""
        return int(self.stream.num_shards)

    def items(self, unit: int, start: int = 0) -> Iterator[SourceItem]:
        """As in `PictureSource`."""
        part = self.stream.shard(num_shards=self.units, index=unit)
        for number, row in enumerate(part.skip(start) if start else part, start):
            name = f"{self.name}, part {unit}, row {number}"
            # What is stored as a path would be opened wherever the data says.
            picture = (row[self.picture] or {}).get("bytes")
            if picture is None:
                yield unreadable(name, "the row holds no picture")
            else:
                yield stored_item(name, caption_of(row), picture)


def open_streamed(name: str) -> StreamedSource:
    """`NAME` or `NAME:SPLIT`, "train" by default, of `datasets`, streamed.

    Raises:
        DiffCRError: The library is missing, or there is no such data set, split, picture or caption
            in it.
    """
    _require("datasets")
    import datasets

    name, _, split = name.partition(":")
    split = split or "train"
    if not name:
        raise DiffCRError("datasets: names no data set: give datasets:NAME")
    try:
        stream = datasets.load_dataset(name, split=split, streaming=True)
    except (OSError, ValueError, ImportError) as error:
        reason = first_line(error)
        raise DiffCRError(f"datasets:{name}:{split} cannot be opened: {reason}") from error
    features = stream.features or {}
    pictures = [key for key, kind in features.items() if isinstance(kind, datasets.Image)]
    if not pictures or not any(key in features for key in CAPTION_KEYS):
        raise DiffCRError(
            f"datasets:{name}:{split} has the columns {', '.join(features) or 'unknown'}: it "
            "needs one of pictures, and one called text or caption"
        )
    picture = "image" if "image" in pictures else pictures[0]
    stream = stream.cast_column(picture, datasets.Image(decode=False))
    return StreamedSource(name, split, stream, picture)


def _require(library: str) -> None:
    if find_spec(library) is None:
        raise DiffCRError(f"{library} is not installed: pip install 'diffcr[data]'")
