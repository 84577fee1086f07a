"""Masks: which pixels are repainted, and which tokens hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class MaskGroup:
    """Samples of a batch with equally many masked tokens, so that none is padded.

    Attributes:
        samples: [b] int64, their places in the batch.
        indices: [b, K] int64, places of their masked tokens, row by row.
    """

    samples: Tensor
    indices: Tensor


def bounds(mask: NDArray[np.bool_], margin: int = 0) -> tuple[slice, slice]:
    """Rows and columns of the smallest window that holds all masked pixels, of which there is one
    at least, and `margin` more on each side where the picture has them."""
    window = []
    for axis, length in ((1, mask.shape[0]), (0, mask.shape[1])):
        places = np.flatnonzero(mask.any(axis=axis))
        start, stop = int(places[0]) - margin, int(places[-1]) + 1 + margin
        window.append(slice(max(start, 0), min(stop, length)))
    return window[0], window[1]


def dilate(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """The pixels at most `radius` pixels away from a masked one, in rows and columns: [H, W]."""
    if radius == 0 or not mask.any():
        return mask
    window = bounds(mask, radius)
    grown = np.zeros_like(mask)
    grown[window] = window_sum(mask[window], radius) > 0
    return grown


def default_dilation(mask: NDArray[np.bool_]) -> int:
    """Pixels around a mask that are repainted, too, where the caller asks for no other number:
    1/64 of the picture's longer side, 16 at 1024."""
    return int(max(mask.shape)) // 64


def window_sum(mask: NDArray[np.bool_], radius: int) -> NDArray[np.int32]:
    """How many of the pixels at most `radius` away are masked, [H, W]."""
    counts = mask.astype(np.int32)
    for axis in (0, 1):
        length = counts.shape[axis]
        before = [(0, 0), (0, 0)]
        before[axis] = (1, 0)
        sums = np.pad(counts.cumsum(axis=axis, dtype=np.int32), before)
        places = np.arange(length)
        ends = np.minimum(places + radius + 1, length)
        counts = sums.take(ends, axis) - sums.take(np.maximum(places - radius, 0), axis)
    return counts


def resize_mask(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.bool_]:
    """The mask at another size; a pixel is masked where any of the pixels that it covers is."""
    rows = np.arange(height) * mask.shape[0] // height
    columns = np.arange(width) * mask.shape[1] // width
    # Where places repeat, as they do in an enlargement, `reduceat` gives the pixel itself.
    return np.logical_or.reduceat(np.logical_or.reduceat(mask, rows, axis=0), columns, axis=1)


def masked_tokens(mask: NDArray[np.bool_], pixels_per_token: int) -> Tensor:
    """The tokens that hold a masked pixel: the mask max-pooled.

    Args:
        mask: [H, W], multiples of `pixels_per_token`.
        pixels_per_token: Side of a token.

    Returns:
        [rows, columns] bool.
    """
    height, width = mask.shape
    side = pixels_per_token
    pooled = mask.reshape(height // side, side, width // side, side).any(axis=(1, 3))
    return torch.from_numpy(pooled)


def token_indices(tokens: Tensor) -> Tensor:
    """Places of the masked tokens of a grid [rows, columns], row by row, [K] int64."""
    return tokens.flatten().nonzero().flatten()


def latent_mask(grids: list[Tensor], patch_size: int) -> Tensor:
    """Latents of masked tokens, [B, 1, h, w] bool, from grids [rows, columns] of tokens."""
    tokens = torch.stack(grids).unsqueeze(1)
    return tokens.repeat_interleave(patch_size, 2).repeat_interleave(patch_size, 3)


def mask_coverage(mask: NDArray[np.bool_], pixels_per_latent: int) -> Tensor:
    """Share of each latent's pixels that are masked, [1, 1, h, w] float32 in [0, 1]."""
    pixels = torch.from_numpy(mask).float()[None, None]
    return functional.avg_pool2d(pixels, pixels_per_latent)


def group_by_count(indices: Sequence[Tensor]) -> list[MaskGroup]:
    """Samples of a batch by their number of masked tokens, ascending.

    Args:
        indices: Each sample's places of masked tokens, [K] int64, all on one device.
    """
    groups = []
    for count in sorted({len(places) for places in indices}):
        samples = [i for i, places in enumerate(indices) if len(places) == count]
        stacked = torch.stack([indices[i] for i in samples])
        groups.append(MaskGroup(torch.tensor(samples, device=stacked.device), stacked))
    return groups
