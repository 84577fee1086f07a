"""Which heads and channels of a block stay, by the magnitude of their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from diffcr.cost.flops import BlockShape
from diffcr.errors import DiffCRError

_SELF_ATTENTION = 4
_CROSS_ATTENTION = 2


def pruned_shape(shape: BlockShape, compression_ratio: float) -> BlockShape:
    """A block without about `compression_ratio` of its operations in linear layers.

    Both attentions keep the same number of heads, the nearest to their share and at least one; the
    feed-forward keeps as many channels as make up for the rounding. Counted per image token: what
    the text's two projections cost depends on the call, and they lose the share of the heads.

    Args:
        shape: Of the dense block.
        compression_ratio: In [0, 1); 0 gives the dense block.

    Raises:
        DiffCRError: The heads that stay take all of what is left.
    """
    heads = max(1, round(shape.heads * (1 - compression_ratio)))
    head_width = shape.attention_width // shape.heads
    projections = _SELF_ATTENTION + (_CROSS_ATTENTION if shape.text_width else 0)
    attention = projections * shape.attention_width
    left = (1 - compression_ratio) * (attention + shape.mlp_projections * shape.mlp_width)
    channels = round((left - projections * heads * head_width) / shape.mlp_projections)
    if channels < 1:
        raise DiffCRError(
            f"compression_ratio {compression_ratio} leaves the feed-forward no channel beside "
            f"{heads} of {shape.heads} heads: lower it"
        )
    return replace(shape, heads=heads, head_width=head_width, mlp_width=channels)


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
