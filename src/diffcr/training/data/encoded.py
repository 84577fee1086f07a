"""What training asks of encoded pictures, wherever they are kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from diffcr.training.data.order import ItemOrder


@dataclass(frozen=True)
class EncodedBatch:
    """Pictures of one size as the transformer sees them.

    Attributes:
        latents: [B, C, h, w] float32, scaled as the pipeline scales them.
        prompt_embeds: [B, T, D] float32, T the same in all batches.
        prompt_masks: [B, T] int64, 1 where there is a token.
    """

    latents: Tensor
    prompt_embeds: Tensor
    prompt_masks: Tensor


class EncodedPictures(Protocol):
    """A data set that was encoded."""

    def __len__(self) -> int: ...

    def batch(self, items: Tensor, drop: Tensor) -> EncodedBatch:
        """Items [B] int64 of one shape; with the empty caption where `drop` [B] bool."""
        ...

    def order(self, seed: int) -> ItemOrder:
        """In which order training meets the items."""
        ...

    def identity(self) -> Iterator[bytes]:
        """What has to be equal, to the bit, for a run to go on with the data."""
        ...

    def sampled_values(self) -> list[float]:
        """Some of the encoded values, which differ in their last bits from machine to machine."""
        ...
