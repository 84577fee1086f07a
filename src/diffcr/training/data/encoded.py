"""What training asks of encoded pictures, wherever they are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from diffcr.hosts.pipelines.prompt import Prompt
from diffcr.training.data.order import ItemOrder

_NAMES = {"embeds": "prompt_embeds", "mask": "prompt_masks", "pooled": "prompt_pooled"}


@dataclass(frozen=True)
class EncodedBatch:
    """Pictures of one size as the transformer sees them.

    Attributes:
        latents: [B, C, h, w] or [B, C, f, h, w] float32, scaled as the pipeline scales them.
        prompts: Of the B captions, float32, as long in all batches.
    """

    latents: Tensor
    prompts: Prompt


def prompt_tensors(prompts: Prompt) -> dict[str, Tensor]:
    """A prompt's tensors by the names that they have in files."""
    return {_NAMES.get(name, name): tensor for name, tensor in prompts.tensors().items()}


def prompt_of(tensors: Mapping[str, Tensor]) -> Prompt:
    """What `prompt_tensors` was given."""
    named = {kept: name for name, kept in _NAMES.items()}
    return Prompt.of_tensors({named.get(name, name): t for name, t in tensors.items()})


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
