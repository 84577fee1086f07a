"""KID: squared maximum mean discrepancy of Inception features under a cubic kernel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.evaluation.metrics.samples import check_samples


@dataclass(frozen=True)
class KernelDistance:
    """Estimates on random subsets.

    Attributes:
        values: One per subset; unbiased, so that some are below 0 between sets that are alike.
        subset_size: Rows of each set in a subset, drawn without replacement.
        seed: Of the draws.
    """

    values: tuple[float, ...]
    subset_size: int
    seed: int

    @property
    def mean(self) -> float:
        """Of the subsets."""
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
    check_samples(first, second)
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
    return KernelDistance(tuple(values), subset_size, seed)


def _squared_mmd(x: Tensor, y: Tensor) -> float:
    count = len(x)
    within = sum(_kernel(z, z).fill_diagonal_(0).sum() for z in (x, y)) / (count * (count - 1))
    return float(within - 2 * _kernel(x, y).mean())


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3
