"""Distances between two sets of features: Frechet (FID and its relatives), KID, CMMD."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffcr.errors import DiffCRError

_CMMD_SIGMA, _CMMD_SCALE = 10.0, 1000.0
# The whole kernel matrix of 30 000 images would take 7 GB.
_CMMD_ROWS = 1024


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Squared Frechet distance of two Gaussians fitted to features (Heusel et al., 2017).

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), in float64; the trace of the root is the sum of
    the root's eigenvalues, taken of the symmetric S1^(1/2) S2 S1^(1/2), which also holds where
    there are fewer rows than columns and the covariances are singular.

    Args:
        first: [n, F], any floating dtype.
        second: [m, F].

    Returns:
        0 or more; biased upwards, the more so the fewer the rows.

    Raises:
        DiffCRError: Other widths, fewer than 2 rows, or values that are not finite.
    """
    _check(first, second)
    a, b = first.double(), second.double()
    gap = (a.mean(0) - b.mean(0)).square().sum()
    cov_a, cov_b = torch.atleast_2d(torch.cov(a.T)), torch.atleast_2d(torch.cov(b.T))
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    # Rounding leaves a little below 0 between equal sets.
    return max(0.0, float(gap + cov_a.trace() + cov_b.trace() - 2 * cross))


@dataclass(frozen=True)
class KernelDistance:
    """KID: estimates on random subsets.

    Attributes:
        values: One per subset; unbiased, so that some are below 0 between sets that are alike.
        subset_size: Rows of each set in a subset, drawn without replacement.
    """

    values: tuple[float, ...]
    subset_size: int

    @property
    def mean(self) -> float:
        """Over the subsets."""
        return sum(self.values) / len(self.values)

    @property
    def std(self) -> float:
        """Population standard deviation over the subsets, not the mean's error."""
        return float(torch.tensor(self.values, dtype=torch.float64).std(correction=0))


def kernel_distance(
    first: Tensor, second: Tensor, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> KernelDistance:
    """Unbiased squared MMD under k(x, y) = (x . y / F + 1)^3 (Binkowski et al., 2018).

    Args:
        first: [n, F], any floating dtype; computed in float64.
        second: [m, F].
        subsets: How many are drawn.
        subset_size: Rows of each set in a subset, at most min(n, m).
        seed: Of the draws.

    Raises:
        DiffCRError: Fewer rows than a subset has, a number below its least, other widths, or
            values that are not finite.
    """
    _check(first, second)
    if subsets < 1 or subset_size < 2:
        raise DiffCRError(
            f"{subsets} subsets of {subset_size} images: give at least 1 subset of at least 2"
        )
    fewest = min(len(first), len(second))
    if subset_size > fewest:
        raise DiffCRError(
            f"KID's subsets have {subset_size} images and there are {fewest}: give more images, or "
            f"a subset size of at most {fewest}"
        )
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(subsets):
        rows = [torch.randperm(len(x), generator=generator)[:subset_size] for x in (first, second)]
        values.append(_squared_mmd(first[rows[0]].double(), second[rows[1]].double()))
    return KernelDistance(tuple(values), subset_size)


def _squared_mmd(x: Tensor, y: Tensor) -> float:
    count = len(x)
    within = sum(_cubic(z, z).fill_diagonal_(0).sum() for z in (x, y)) / (count * (count - 1))
    return float(within - 2 * _cubic(x, y).mean())


def _cubic(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def clip_mmd(first: Tensor, second: Tensor) -> float:
    """1000 times the squared MMD under exp(-|x - y|^2 / 200) (CMMD, Jayasumana et al., 2024).

    As in google-research/cmmd this is the minimum-variance estimate, in which each row is also
    compared with itself: never below 0, and biased upwards by about 1/n + 1/m of the kernel's
    spread. In float64, where that code has float32.

    Args:
        first: Embeddings [n, F] of norm 1, any floating dtype.
        second: [m, F].

    Raises:
        DiffCRError: Other widths, fewer than 2 rows, or values that are not finite.
    """
    _check(first, second)
    x, y = first.double(), second.double()
    return _CMMD_SCALE * (_mean_gaussian(x, x) + _mean_gaussian(y, y) - 2 * _mean_gaussian(x, y))


def _mean_gaussian(x: Tensor, y: Tensor) -> float:
    total, norms = 0.0, y.square().sum(1)
    for rows in x.split(_CMMD_ROWS):
        squares = rows.square().sum(1, keepdim=True) + norms - 2 * rows @ y.T
        total += float((-squares / (2 * _CMMD_SIGMA**2)).exp().sum())
    return total / (len(x) * len(y))


def _check(first: Tensor, second: Tensor) -> None:
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise DiffCRError(
            f"features of shapes {tuple(first.shape)} and {tuple(second.shape)} cannot be "
            "compared: give [n, F] and [m, F] from one network"
        )
    fewest = min(len(first), len(second))
    if fewest < 2:
        raise DiffCRError(f"{fewest} images are too few to compare: give 2 or more")
    if not (torch.isfinite(first).all() and torch.isfinite(second).all()):
        raise DiffCRError("features are not finite: the network's weights are damaged")
