"""Tensors that may be split over processes (DTensor), and what one process holds of them.

Functions that exchange values are called by all processes, or by none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def is_split(tensor: Tensor) -> bool:
    """Whether processes hold parts of a tensor."""
    return getattr(tensor, "full_tensor", None) is not None


def whole(tensor: Tensor) -> Tensor:
    """All values of a tensor, with gradient; processes exchange theirs where it is split."""
    gather = getattr(tensor, "full_tensor", None)
    values: Tensor = tensor if gather is None else gather()
    return values


def own_part(tensor: Tensor) -> Tensor:
    """The values that this process holds, as a view that may be written to."""
    held = getattr(tensor, "to_local", None)
    values: Tensor = tensor if held is None else held()
    return values


@torch.no_grad()
def fill_part(tensor: Tensor, values: Tensor) -> None:
    """Write what this process holds of a tensor; `values` are those of all."""
    if not is_split(tensor):
        tensor.copy_(values)
        return
    from torch.distributed.tensor import distribute_tensor

    split: Any = tensor
    placed = distribute_tensor(values.to(split.device), split.device_mesh, split.placements)
    split.copy_(placed)
