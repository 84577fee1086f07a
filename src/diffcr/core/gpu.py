"""Whether the routed layer's kernels run where some tokens are."""

from __future__ import annotations

import subprocess
from functools import cache
from types import ModuleType
from warnings import warn

import torch
from torch import Tensor

from diffcr.errors import DiffCRWarning


def kernels_for(hidden_states: Tensor) -> ModuleType | None:
    """`diffcr.core.kernels`, which is for GPUs, without gradients, and up to float32; None where
    the operations of `diffcr.core.select` are to run. Under torch.compile those are fused."""
    # A subclass is a tensor in parts, or one that counts what is done with it.
    if (
        not hidden_states.is_cuda
        or type(hidden_states) is not Tensor
        or torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or hidden_states.dtype is torch.float64
    ):
        return None
    return _kernels_on(hidden_states.device)


@cache
def _kernels_on(device: torch.device) -> ModuleType | None:
    try:
        # Comes with torch's builds for GPUs alone.
        from diffcr.core import kernels
    except ImportError:
        return None
    try:
        kernels.score(torch.zeros(1, 1, 1, device=device), torch.zeros(1, device=device))
    except (OSError, RuntimeError, subprocess.SubprocessError) as reason:
        warn(
            f"Triton does not run on {device}, so that routing takes more and slower operations "
            f"({reason}): a C compiler is what it needs",
            DiffCRWarning,
            stacklevel=2,
        )
        return None
    return kernels
