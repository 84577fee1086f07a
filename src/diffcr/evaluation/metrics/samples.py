"""What every comparison of two sets of features asks of them."""

from __future__ import annotations

import torch
from torch import Tensor

from diffcr.errors import DiffCRError


def check_samples(first: Tensor, second: Tensor, at_least: int = 2) -> None:
    """Raises DiffCRError where features [n, F] and [m, F] cannot be compared: other widths, fewer
    than `at_least` rows in one of them, or values that are not finite."""
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise DiffCRError(
            f"features of shapes {tuple(first.shape)} and {tuple(second.shape)} cannot be "
            "compared: give [n, F] and [m, F] from one network"
        )
    fewest = min(len(first), len(second))
    if fewest < at_least:
        raise DiffCRError(f"{fewest} images are too few to compare: give {at_least} or more")
    if not (torch.isfinite(first).all() and torch.isfinite(second).all()):
        raise DiffCRError("features are not finite: the network's weights are damaged")
