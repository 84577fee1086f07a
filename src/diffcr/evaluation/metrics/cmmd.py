"""CMMD: maximum mean discrepancy of CLIP embeddings under a Gaussian kernel."""

from __future__ import annotations

from torch import Tensor

from diffcr.evaluation.metrics.samples import check_samples

_SIGMA = 10.0
_SCALE = 1000.0
_ROWS = 1024


def clip_mmd(first: Tensor, second: Tensor) -> float:
    """1000 times the squared MMD under exp(-|x - y|^2 / 200) (Jayasumana et al., 2024).

    As in google-research/cmmd this is the minimum-variance estimate, in which each row is also
    compared with itself: never below 0, and biased upwards by about 1/n + 1/m of the kernel's
    spread. In float64, where that code has float32.

    Args:
        first: Embeddings [n, F] of norm 1, any floating dtype.
        second: [m, F].

    Raises:
        DiffCRError: Other widths, fewer than 2 rows, or values that are not finite.
    """
    check_samples(first, second)
    x, y = first.double(), second.double()
    return _SCALE * (_mean_kernel(x, x) + _mean_kernel(y, y) - 2 * _mean_kernel(x, y))


def _mean_kernel(x: Tensor, y: Tensor) -> float:
    """Block by block: the whole matrix of 30 000 images would take 7 GB."""
    total = 0.0
    norms = y.square().sum(1)
    for rows in x.split(_ROWS):
        squares = rows.square().sum(1, keepdim=True) + norms - 2 * rows @ y.T
        total += float((-squares / (2 * _SIGMA**2)).exp().sum())
    return total / (len(x) * len(y))
