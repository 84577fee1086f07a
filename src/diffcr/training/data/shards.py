"""Encoded pictures in shards, of which a few are open at a time.

encoding.json              what is encoded, and how
dataset.json               the same, and the list of shards, once all are there
empty-caption.safetensors  embedding of the empty caption
shards/*.safetensors       pictures of one size each, with their captions
skipped.jsonl              pictures that could not be read, and why

A shard holds `latents` [n, C, ...], `prompt_embeds` [t, D] of its distinct captions one after the
other without padding, `caption_starts` [u + 1] int64, their rows, and `caption_of` [n] int64; for
some models also `prompt_pooled` [u, P] and others, [u, ...]. Values are in the dtype of the model
that made them.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.files import read_json, read_tensors, write_json, write_tensors
from diffcr.hosts.pipelines.prompt import Prompt
from diffcr.training.data.encoded import EncodedBatch, prompt_of, prompt_tensors
from diffcr.training.data.encoding import sample_values
from diffcr.training.data.order import Bucket, ItemOrder, ShardedItems

BEGUN_FILE = "encoding.json"
INDEX_FILE = "dataset.json"
EMPTY_FILE = "empty-caption.safetensors"
SHARDS_DIRECTORY = "shards"
_FORMAT = 1


@dataclass(frozen=True)
class Shard:
    """A file of encoded pictures.

    Attributes:
        file: Its name below `shards/`.
        items: Pictures in it.
        latent_shape: (C, ...) of all of them.
        longest: Tokens of its longest caption.
    """

    file: str
    items: int
    latent_shape: tuple[int, ...]
    longest: int

    @classmethod
    def from_json_dict(cls, values: Mapping[str, Any]) -> Shard:
        """From an entry of `dataset.json`."""
        shape = tuple(map(int, values["latent_shape"]))
        return cls(str(values["file"]), int(values["items"]), shape, int(values["longest"]))


@dataclass(frozen=True)
class ShardContents:
    """The tensors of a shard, as the module's text says."""

    latents: Tensor
    prompt_embeds: Tensor
    caption_starts: Tensor
    caption_of: Tensor
    others: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, latents: Tensor, prompts: Prompt, caption_of: Tensor) -> ShardContents:
        """Of pictures and their distinct captions, [u] `prompts`.

        Raises:
            DiffCRError: The prompts are classes.
        """
        if prompts.embeds.dim() < 2:
            raise DiffCRError(
                "a model that is told classes has no captions to encode: train on the folder itself"
            )
        others = prompt_tensors(prompts)
        embeds, masks = others.pop("prompt_embeds"), others.pop("prompt_masks", None)
        seen = torch.ones(embeds.shape[:2], dtype=torch.bool) if masks is None else masks.bool()
        lengths = seen.sum(1)
        starts = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        return cls(latents, embeds[seen], starts, caption_of, others)

    def tensors(self) -> dict[str, Tensor]:
        """By name, as in the file."""
        named = dict(vars(self))
        return {**named.pop("others"), **named}


def write_shard(directory: Path, file: str, contents: ShardContents) -> Shard:
    """Write a shard of the data set in `directory`."""
    write_tensors(directory / SHARDS_DIRECTORY / file, contents.tensors())
    longest = int(contents.caption_starts.diff().max())
    shape = tuple(contents.latents.shape[1:])
    return Shard(file, len(contents.latents), shape, longest)


def write_index(
    directory: Path, settings: Mapping[str, Any], shards: Sequence[Shard], skipped: int = 0
) -> None:
    """Write `dataset.json`, which makes the shards a data set.

    Args:
        directory: With the shards and the embedding of the empty caption.
        settings: What the items were made of, for people and for runs.
        shards: In the order of their items.
        skipped: Pictures that were passed over.
    """
    items = sum(shard.items for shard in shards)
    described = {"settings": dict(settings), "items": items, "skipped": skipped}
    listed = [asdict(shard) for shard in shards]
    write_json(directory / INDEX_FILE, {"format": _FORMAT, **described, "shards": listed})


def write_empty_caption(directory: Path, prompt: Prompt) -> None:
    """Write the empty caption, one sample."""
    tensors = ((name, tensor[0]) for name, tensor in prompt_tensors(prompt).items())
    write_tensors(directory / EMPTY_FILE, {n: t for n, t in tensors if n != "prompt_masks"})


def holds_shards(source: str) -> bool:
    """Whether a recipe's source is a directory that `diffcr encode` writes."""
    return any((Path(source) / name).is_file() for name in (INDEX_FILE, BEGUN_FILE))


class ShardedDataset:
    """Encoded pictures that are read when they are asked for; memory holds no more than the shards
    that are open.

    Attributes:
        directory: That `diffcr encode` wrote.
        window: Shards whose items are mixed in training.
        settings: What the items were made of.
        shards: In the order of their items.
        skipped: Pictures that were passed over when it was made.
        longest: Tokens that every caption is padded to.

    Raises:
        DiffCRError: The directory is not complete, damaged, or of a later format.
    """

    def __init__(self, directory: str | Path, window: int = 8) -> None:
        self.directory, self.window = Path(directory), window
        if not (self.directory / INDEX_FILE).exists():
            raise DiffCRError(f"{directory} is not complete: run the same diffcr encode again")
        described = read_json(self.directory / INDEX_FILE)
        if described.get("format") != _FORMAT:
            raise DiffCRError(
                f"{self.directory / INDEX_FILE} has format {described.get('format')!r}, this "
                f"version of diffcr reads {_FORMAT}: use the version of diffcr that wrote it"
            )
        try:
            self.settings: dict[str, Any] = dict(described["settings"])
            self.skipped = int(described["skipped"])
            self.shards = tuple(map(Shard.from_json_dict, described["shards"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DiffCRError(
                f"{self.directory / INDEX_FILE} is damaged ({error}): run diffcr encode again"
            ) from error
        if not self.shards:
            raise DiffCRError(f"{self.directory} holds no pictures: encode some")
        self._empty = read_tensors(self.directory / EMPTY_FILE)
        longest = len(self._empty["prompt_embeds"])
        self.longest = max(longest, *(shard.longest for shard in self.shards))
        self._ends = np.cumsum([shard.items for shard in self.shards])
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()
        self._most_open = (window + 1) * len(self._buckets())

    def __len__(self) -> int:
        return int(self._ends[-1])

    def batch(self, items: Tensor, drop: Tensor) -> EncodedBatch:
        """As in `EncodedPictures`.

        Raises:
            DiffCRError: A shard is missing or damaged.
        """
        latents, captions = [], []
        for item, dropped in zip(items.tolist(), drop.tolist(), strict=True):
            number = int(np.searchsorted(self._ends, item, side="right"))
            shard = self._opened(number)
            row = item - int(self._ends[number]) + self.shards[number].items
            latents.append(shard.latents(row).float())
            captions.append(self._empty if dropped else shard.caption(row))
        empty = self._empty["prompt_embeds"]
        dtype = torch.float32 if empty.is_floating_point() else empty.dtype
        embeds = empty.new_zeros(len(items), self.longest, *empty.shape[1:], dtype=dtype)
        masks = torch.zeros(len(items), self.longest, dtype=torch.int64)
        for row, caption in enumerate(captions):
            tokens = caption["prompt_embeds"]
            embeds[row, : len(tokens)] = tokens
            masks[row, : len(tokens)] = 1
        others = {
            name: torch.stack([caption[name] for caption in captions])
            for name in self._empty
            if name != "prompt_embeds"
        }
        others = {n: t.float() if t.is_floating_point() else t for n, t in others.items()}
        prompts = prompt_of({"prompt_embeds": embeds, "prompt_masks": masks, **others})
        return EncodedBatch(torch.stack(latents), prompts)

    def order(self, seed: int) -> ItemOrder:
        """As in `EncodedPictures`: whole shards are shuffled, and the items of `window` of them."""
        return ShardedItems(seed, self._buckets(), self.window)

    def identity(self) -> Iterator[bytes]:
        """As in `EncodedPictures`: which items there are."""
        yield hashlib.sha256((self.directory / INDEX_FILE).read_bytes()).digest()

    def sampled_values(self) -> list[float]:
        """As in `EncodedPictures`: of the first picture of the first and of the last shard."""
        ends = (self._opened(number) for number in {0, len(self.shards) - 1})
        pairs = [(shard.latents(0), shard.caption(0)["prompt_embeds"]) for shard in ends]
        return [value for pair in pairs for tensor in pair for value in sample_values(tensor)]

    def _buckets(self) -> tuple[Bucket, ...]:
        """The shards by the shape of their latents."""
        starts = (self._ends - [shard.items for shard in self.shards]).tolist()
        members: dict[tuple[int, ...], list[int]] = {}
        for number, shard in enumerate(self.shards):
            members.setdefault(shard.latent_shape, []).append(number)
        return tuple(
            Bucket(
                shape,
                tuple(starts[number] for number in numbers),
                tuple(self.shards[number].items for number in numbers),
            )
            for shape, numbers in sorted(members.items())
        )

    def _opened(self, number: int) -> _OpenShard:
        if number in self._open:
            self._open.move_to_end(number)
        else:
            path = self.directory / SHARDS_DIRECTORY / self.shards[number].file
            self._open[number] = _OpenShard(path)
            if len(self._open) > self._most_open:
                self._open.popitem(last=False)
        return self._open[number]


class _OpenShard:
    """A shard's file; what is asked for is read, nothing else."""

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            file = safe_open(path, framework="pt")
            self._latents = file.get_slice("latents")
            self._embeds = file.get_slice("prompt_embeds")
            self._starts: list[int] = file.get_tensor("caption_starts").tolist()
            self._caption_of: list[int] = file.get_tensor("caption_of").tolist()
            others = set(file.keys()) - {"latents", "prompt_embeds", "caption_starts", "caption_of"}
            self._others = {name: file.get_slice(name) for name in others}
        except (OSError, SafetensorError) as error:
            raise DiffCRError(f"{path} is missing or damaged ({error}): copy it again") from error

    def latents(self, row: int) -> Tensor:
        """[C, ...] in the shard's dtype."""
        latents: Tensor = self._latents[row]
        return latents

    def caption(self, row: int) -> dict[str, Tensor]:
        """A picture's caption: `prompt_embeds` [t, D], and what else there is of it."""
        caption = self._caption_of[row]
        embeds = self._embeds[self._starts[caption] : self._starts[caption + 1]]
        return {"prompt_embeds": embeds, **{n: t[caption] for n, t in self._others.items()}}
