"""Which heads and channels of a block stay, by the magnitude of their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffcr.errors import DiffCRError


@dataclass(frozen=True)
class UnitSizes:
    """Equal parts of a block, heads or channels.

    Attributes:
        count: How many there are, at least 1.
        weights: Of one of them, in the linear layers that compute image tokens: what the text's
            projections cost depends on the call.
        are_heads: Whether they are heads of an attention, rather than channels of the feed-forward.
    """

    count: int
    weights: int
    are_heads: bool


def kept_counts(sizes: Sequence[UnitSizes], compression_ratio: float) -> list[int]:
    """How many units stay, so that about `compression_ratio` of a block's weights go.

    An attention keeps the number of heads that is the nearest to its share, at least one; the
    feed-forward keeps as many channels as make up for the rounding.

    Args:
        sizes: Of all that can be taken out of a block, attentions first.
        compression_ratio: In [0, 1); 0 keeps everything.

    Raises:
        DiffCRError: The heads that stay take all of what is left.
    """
    stays = 1 - compression_ratio
    kept = [max(1, round(units.count * stays)) if units.are_heads else 0 for units in sizes]
    left = stays * sum(units.count * units.weights for units in sizes)
    left -= sum(count * units.weights for count, units in zip(kept, sizes, strict=True))
    channels = sum(units.count * units.weights for units in sizes if not units.are_heads)
    for row, units in enumerate(sizes):
        if not units.are_heads:
            kept[row] = round(units.count * left / channels)
            if kept[row] < 1:
                raise DiffCRError(
                    f"compression_ratio {compression_ratio} leaves the feed-forward no channel "
                    f"beside {kept[0]} of {sizes[0].count} heads: lower it"
                )
    return kept


def unit_magnitudes(rows: Sequence[Tensor], columns: Sequence[Tensor], units: int) -> Tensor:
    """L2 norm over all weights of a unit, a head or a channel.

    Args:
        rows: Weights [units * size, in] of the layers that give the units' values.
        columns: Weights [out, units * size] of the layers that take them.
        units: How many there are.

    Returns:
        [units] float32.
    """
    parts = [*rows, *(weight.T for weight in columns)]
    squares = [part.detach().float().square().reshape(units, -1).sum(1) for part in parts]
    return torch.stack(squares).sum(0).sqrt()


def kept_units(magnitudes: Tensor, kept: int) -> Tensor:
    """Indices [kept] int64, ascending, of the largest; among equal ones the first."""
    return torch.argsort(magnitudes, descending=True, stable=True)[:kept].sort().values


def unit_features(units: Tensor, size: int) -> Tensor:
    """Indices [K * size] int64 of the features of units [K] that have `size` each."""
    features = units.unsqueeze(1) * size + torch.arange(size, device=units.device)
    return features.flatten()
