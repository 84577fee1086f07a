"""The Frechet distance between two sets of features, behind FID and its relatives."""

from __future__ import annotations

import torch
from torch import Tensor

from diffcr.evaluation.metrics.samples import check_samples


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
    check_samples(first, second)
    a, b = first.double(), second.double()
    gap = (a.mean(0) - b.mean(0)).square().sum()
    cov_a, cov_b = torch.atleast_2d(torch.cov(a.T)), torch.atleast_2d(torch.cov(b.T))
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    # Rounding leaves a little below 0 between equal sets.
    return max(0.0, float(gap + cov_a.trace() + cov_b.trace() - 2 * cross))
