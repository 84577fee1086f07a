"""Masks: which pixels are repainted, and which tokens hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from diffcr.inpainting.pictures import Picture, read_picture, separate

_HALF = 128
# Rec. 601, as PIL converts to greyscale.
_LUMINANCE = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class MaskGroup:
    """Samples of a batch with equally many masked tokens, so that none is padded.

    Attributes:
        samples: [b] int64, their places in the batch.
        indices: [b, K] int64, places of their masked tokens, row by row.
    """

    samples: Tensor
    indices: Tensor


def read_masks(masks: Any) -> list[NDArray[np.bool_]]:
    """Masks of the forms that `read_pictures` reads: white is repainted, black stays.

    A pixel is masked where its luminance is at least one half. Transparent pixels count as black:
    white strokes on a transparent layer are a mask.

    Returns:
        [H, W] bool for each.

    Raises:
        DiffCRError: One is no picture.
    """
    return [_where_white(read_picture(mask, "mask")) for mask in separate(masks)]


def _where_white(picture: Picture) -> NDArray[np.bool_]:
    luminance = picture.pixels @ np.asarray(_LUMINANCE, dtype=np.float32)
    if picture.alpha is not None:
        luminance *= picture.alpha / np.float32(255)
    # White itself adds up to 254.99998 in float32: half a step below the threshold decides.
    return np.asarray(luminance > _HALF - 0.5)


def dilate(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """The pixels at most `radius` pixels away from a masked one, in rows and columns: [H, W]."""
    return window_sum(mask, radius) > 0 if radius else mask


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


def mask_coverage(mask: NDArray[np.bool_], pixels_per_latent: int) -> Tensor:
    """Share of each latent's pixels that are masked, [1, 1, h, w] float32 in [0, 1]."""
    pixels = torch.from_numpy(mask).float()[None, None]
    return functional.avg_pool2d(pixels, pixels_per_latent)


def group_by_count(indices: Sequence[Tensor]) -> list[MaskGroup]:
    """Samples of a batch by their number of masked tokens, ascending.

    Args:
        indices: Each sample's places of masked tokens, [K] int64.
    """
    counts = sorted({len(places) for places in indices})
    groups = []
    for count in counts:
        samples = [i for i, places in enumerate(indices) if len(places) == count]
        groups.append(MaskGroup(torch.tensor(samples), torch.stack([indices[i] for i in samples])))
    return groups
