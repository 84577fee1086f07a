"""Encoding some pictures and their captions into one shard per size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.hosts.latents import encode_images
from diffcr.training.data.encoding import encode_captions, encoders
from diffcr.training.data.shards import Shard, ShardContents, write_shard
from diffcr.training.data.sizes import PictureSize, fit_picture, nearest_size
from diffcr.training.data.sources.item import SourceItem

# Pictures that wait for the autoencoder, in batches.
_READ_AHEAD = 4


@dataclass(frozen=True)
class ShardSettings:
    """How pictures are encoded.

    Attributes:
        sizes: That pictures are brought to, each to the one with the nearest aspect ratio.
        max_sequence_length: Tokens that a caption is cut to.
        shard_items: Pictures that a shard holds at most.
        batch_size: Pictures, or captions, per call of a model.
    """

    sizes: tuple[PictureSize, ...]
    max_sequence_length: int
    shard_items: int
    batch_size: int


@dataclass(frozen=True)
class SkippedPicture:
    """A picture that was passed over."""

    name: str
    reason: str


@dataclass(frozen=True)
class _Fitted:
    """A picture in its size, with its caption."""

    image: Image.Image
    caption: str
    size: PictureSize


@dataclass
class _Encoded:
    """Pictures of one size: those that wait for the autoencoder, latents of the others."""

    waiting: list[Image.Image] = field(default_factory=list)
    latents: list[Tensor] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)


class PartEncoder:
    """Encodes the items of one part; batches depend on those items alone."""

    def __init__(self, pipe: Any, settings: ShardSettings, readers: ThreadPoolExecutor) -> None:
        self.pipe, self.settings, self.readers = pipe, settings, readers
        self.skipped: list[SkippedPicture] = []

    def encode(self, items: Sequence[SourceItem], directory: Path, name: str) -> tuple[Shard, ...]:
        """Write one shard per size that occurs."""
        by_size: dict[PictureSize, _Encoded] = {}
        for fitted in self._read(items):
            encoded = by_size.setdefault(fitted.size, _Encoded())
            encoded.waiting.append(fitted.image)
            encoded.captions.append(fitted.caption)
            if len(encoded.waiting) == self.settings.batch_size:
                self._encode_waiting(encoded)
        shards = []
        for size, encoded in sorted(by_size.items()):
            self._encode_waiting(encoded)
            file = f"{name}-{size.height}x{size.width}.safetensors"
            shards.append(write_shard(directory, file, self._contents(encoded)))
        return tuple(shards)

    def _read(self, items: Sequence[SourceItem]) -> Iterator[_Fitted]:
        """Pictures in their order, read by threads, a few batches at a time."""
        ahead = _READ_AHEAD * self.settings.batch_size
        for start in range(0, len(items), ahead):
            read = partial(_read_item, sizes=self.settings.sizes)
            for result in self.readers.map(read, items[start : start + ahead]):
                if isinstance(result, SkippedPicture):
                    self.skipped.append(result)
                else:
                    yield result

    def _encode_waiting(self, encoded: _Encoded) -> None:
        if encoded.waiting:
            encoded.latents.append(encode_images(self.pipe, encoded.waiting).cpu())
            encoded.waiting.clear()

    def _contents(self, encoded: _Encoded) -> ShardContents:
        numbers: dict[str, int] = {}
        caption_of = [numbers.setdefault(c, len(numbers)) for c in encoded.captions]
        settings = self.settings
        prompts = encode_captions(
            self.pipe, list(numbers), settings.max_sequence_length, settings.batch_size
        ).to("cpu", encoders(self.pipe)[-1].dtype)
        return ShardContents.of(torch.cat(encoded.latents), prompts, torch.tensor(caption_of))


def _read_item(item: SourceItem, sizes: tuple[PictureSize, ...]) -> _Fitted | SkippedPicture:
    try:
        image = item.read()
    except DiffCRError as error:
        return SkippedPicture(item.name, str(error))
    size = nearest_size(image, sizes)
    return _Fitted(fit_picture(image, size), item.caption, size)
