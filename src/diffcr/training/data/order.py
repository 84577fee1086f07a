"""In which order items are drawn: functions of the seed and the number of the micro-batch alone.

A position in the data is the number of the next micro-batch. It is resumed exactly without anything
that was saved beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Tells the permutations of shards from those of items and of timestep regions.
_OF_SHARDS, _OF_A_WINDOW, _OF_BUCKETS = 2, 3, 4


@dataclass(frozen=True)
class DrawnItems:
    """Items of one micro-batch.

    Attributes:
        indices: [B] int64, items of the data set.
        latent_shape: (C, ...) of their latents.
    """

    indices: Tensor
    latent_shape: tuple[int, ...]


class ItemOrder(Protocol):
    """From the number of a micro-batch to its items."""

    def draw(self, batch: int, size: int, generator: torch.Generator) -> DrawnItems:
        """Items of micro-batch `batch`, from 0, of `size` samples.

        Args:
            batch: Number of the micro-batch over all steps.
            size: B, over all processes.
            generator: Of the micro-batch, for what is drawn beside the order.
        """
        ...


@dataclass(frozen=True)
class ShuffledItems:
    """Every item once in an epoch, in a random order of all.

    Attributes:
        seed: Another one gives another order.
        items: Size of the data set.
        latent_shape: (C, ...).
    """

    seed: int
    items: int
    latent_shape: tuple[int, ...]

    def draw(self, batch: int, size: int, generator: torch.Generator) -> DrawnItems:
        """As in `ItemOrder`."""
        places = range(batch * size, (batch + 1) * size)
        indices = [
            int(shuffled(self.seed, p // self.items, self.items)[p % self.items]) for p in places
        ]
        return DrawnItems(torch.tensor(indices), self.latent_shape)


@dataclass(frozen=True)
class GroupedItems:
    """Items of one group, drawn by the groups' sizes and with replacement.

    Attributes:
        groups: Items that may share a micro-batch, [m] int64 each.
        latent_shape: (C, ...).
    """

    groups: tuple[Tensor, ...]
    latent_shape: tuple[int, ...]

    def draw(self, batch: int, size: int, generator: torch.Generator) -> DrawnItems:
        """As in `ItemOrder`."""
        sizes = torch.tensor([len(group) for group in self.groups], dtype=torch.float64)
        group = self.groups[int(torch.multinomial(sizes, 1, generator=generator))]
        indices = group[torch.randint(len(group), (size,), generator=generator)]
        return DrawnItems(indices, self.latent_shape)


@dataclass(frozen=True)
class Bucket:
    """Shards whose latents have one shape.

    Attributes:
        latent_shape: (C, ...).
        starts: Number in the data set of every shard's first item.
        counts: Items of every shard.
    """

    latent_shape: tuple[int, ...]
    starts: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def items(self) -> int:
        """Of all shards."""
        return sum(self.counts)


class ShardedItems:
    """Every item once in an epoch of its bucket; a few shards at a time are open.

    Each epoch takes the shards in a random order, `window` of them at a time, and the items of
    those in a random order. A micro-batch is of one bucket. In a turn every bucket has as many
    micro-batches as its items fill, at least one, in random order.

    Args:
        seed: Another one gives another order.
        buckets: At least one.
        window: Shards whose items are mixed, 1 or more.
    """

    def __init__(self, seed: int, buckets: Sequence[Bucket], window: int) -> None:
        self.seed, self.buckets, self.window = seed, tuple(buckets), window
        self._epoch = lru_cache(maxsize=2 * len(self.buckets))(self._order_shards)

    def draw(self, batch: int, size: int, generator: torch.Generator) -> DrawnItems:
        """As in `ItemOrder`."""
        bucket, number = self._bucket_of(batch, size)
        places = range(number * size, (number + 1) * size)
        indices = torch.tensor([self._item(bucket, place) for place in places])
        return DrawnItems(indices, self.buckets[bucket].latent_shape)

    def _bucket_of(self, batch: int, size: int) -> tuple[int, int]:
        """Bucket of a micro-batch, and how many of that bucket come before it."""
        shares = tuple(max(1, round(bucket.items / size)) for bucket in self.buckets)
        turn, place = divmod(batch, sum(shares))
        sequence = _bucket_sequence(self.seed, turn, shares)
        bucket = int(sequence[place])
        return bucket, turn * shares[bucket] + int((sequence[:place] == bucket).sum())

    def _item(self, bucket: int, place: int) -> int:
        """The item at a place of a bucket's endless stream of epochs."""
        epoch, place = divmod(place, self.buckets[bucket].items)
        shards, ends = self._epoch(bucket, epoch)
        window = int(np.searchsorted(ends, place, side="right")) // self.window
        first, last = window * self.window, min((window + 1) * self.window, len(shards))
        begin, end = int(ends[first - 1]) if first else 0, int(ends[last - 1])
        key = (self.seed, epoch, bucket, window, _OF_A_WINDOW)
        mixed = begin + int(_permutation(end - begin, key)[place - begin])
        position = int(np.searchsorted(ends, mixed, side="right"))
        shard = int(shards[position])
        before = int(ends[position - 1]) if position else 0
        return self.buckets[bucket].starts[shard] + mixed - before

    def _order_shards(self, bucket: int, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """A bucket's shards in an epoch's order, and where in the epoch each of them ends."""
        counts = np.asarray(self.buckets[bucket].counts)
        key = (self.seed, epoch, bucket, _OF_SHARDS)
        shards = _permutation(len(counts), key).numpy()
        return shards, counts[shards].cumsum()


@lru_cache(maxsize=2)
def _bucket_sequence(seed: int, turn: int, shares: tuple[int, ...]) -> NDArray[np.int16]:
    sequence = np.repeat(np.arange(len(shares), dtype=np.int16), shares)
    shuffled_sequence: NDArray[np.int16] = sequence[
        _permutation(len(sequence), (seed, turn, _OF_BUCKETS)).numpy()
    ]
    return shuffled_sequence


def shuffled(seed: int, turn: int, items: int) -> Tensor:
    """The order of `items` items, or regions, in one of the turns through all of them."""
    return _permutation(items, (seed, turn, items, 1))


@lru_cache(maxsize=4)
def _permutation(items: int, key: tuple[int, ...]) -> Tensor:
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
    return torch.randperm(items, generator=generator)
