"""Compression ratios: bins, bracketing, rounding to bins, the ratio loss (Sec. 3.3, 3.4).

A bin is an integer in tenths, 0 to 10; `c` is a ratio in [0, 1]; N is the number of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from typing import Any

import torch
from torch import Tensor

from diffcr.errors import DiffCRError

BINS = 10
_ON_A_BIN = 1e-5
_LARGEST_DRIFT = 0.002


def kept_tokens(tokens: int, bin: int) -> int:
    """Of N tokens those that a layer computes at bin i: N * (1 - i / 10), rounded up, in
    integers."""
    return (tokens * (BINS - bin) + BINS - 1) // BINS


@dataclass(frozen=True)
class Bracket:
    """The two bins around a ratio and where it lies between them.

    Attributes:
        bin: The one below, 0 to 9; the one above is `bin + 1`.
        position: (c - bin / 10) / 0.1, in [0, 1].
    """

    bin: int
    position: float


def bracket(compression_ratio: float, max_bin: int) -> Bracket:
    """Bins around `compression_ratio` in [0, max_bin / 10].

    Exactly on a bin the interval to its right is taken, at the maximum the one to its left, so that
    both ends of the range have a gradient (Sec. 3.3).
    """
    tenths = compression_ratio * BINS
    lower = min(floor(tenths + _ON_A_BIN), max_bin - 1)
    return Bracket(lower, min(max(tenths - lower, 0.0), 1.0))


def snap_bins(table: Sequence[Sequence[float]], max_bin: int) -> list[list[int]]:
    """Bin of every entry at inference: the nearest (a tie goes to the lower), mean kept.

    Rounding alone moves the mean, and with it the cost. Entries nearest to a tie are rounded the
    other way until the mean is within 0.002 of the table's, or as near as the table's size allows.

    Args:
        table: [layers][regions] ratios in [0, max_bin / 10].
        max_bin: Largest bin, 1 to 10.
    """
    tenths = [min(max(round(c * BINS, 5), 0.0), float(max_bin)) for row in table for c in row]
    floors = [min(floor(t), max_bin - 1) for t in tenths]
    bins = [low + (t - low > 0.5) for t, low in zip(tenths, floors, strict=True)]
    drift = sum(bins) - sum(tenths)
    direction = -1 if drift > 0 else 1
    flippable = [
        i
        for i, (b, low) in enumerate(zip(bins, floors, strict=True))
        if low <= b + direction <= low + 1
    ]
    by_tie_distance = sorted(flippable, key=lambda i: abs(tenths[i] - floors[i] - 0.5))
    for i in by_tie_distance:
        beyond = abs(drift) > _LARGEST_DRIFT * BINS * len(bins)
        if not beyond or abs(drift + direction) >= abs(drift):
            break
        bins[i] += direction
        drift += direction
    rows = iter(bins)
    return [[next(rows) for _ in row] for row in table]


def check_on_a_bin(ratio: float, maximum: float) -> None:
    """Raises DiffCRError where a compression ratio is outside [0, maximum] or between bins."""
    if not -1e-6 <= ratio <= maximum + 1e-6:
        raise DiffCRError(
            f"compression ratio {ratio:g} is outside [0, {maximum:g}]: "
            f"lower it or raise max_compression_ratio"
        )
    if abs(ratio * BINS - round(ratio * BINS)) > 1e-5:
        raise DiffCRError(f"compression ratio {ratio:g} is not a multiple of 0.1")


class _BoundedRatios(torch.autograd.Function):
    """Clamp whose gradient, outside the range, passes only where a descent step leads back in."""

    @staticmethod
    def forward(ctx: Any, ratios: Tensor, maximum: float) -> Tensor:
        ctx.save_for_backward(ratios)
        ctx.maximum = maximum
        return ratios.clamp(0, maximum)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (ratios,) = ctx.saved_tensors
        (gradient,) = gradients
        outward = ((ratios < 0) & (gradient > 0)) | ((ratios > ctx.maximum) & (gradient < 0))
        return gradient.masked_fill(outward, 0), None


def bounded(ratios: Tensor, maximum: float) -> Tensor:
    """`ratios` clamped to [0, maximum], with a gradient that never strands a value outside."""
    result: Tensor = _BoundedRatios.apply(ratios, maximum)
    return result


def ratio_loss(ratios: Tensor, target: float) -> Tensor:
    """Squared gap of the mean over all layers and regions to the target (Sec. 3.3, App. B)."""
    return (ratios.mean() - target).square()
