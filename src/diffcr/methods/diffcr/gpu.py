"""Whether the routed layer's kernels run where some tokens are."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from warnings import warn

import torch
from torch import Tensor

from diffcr.errors import DiffCRWarning


def kernels_for(hidden_states: Tensor) -> ModuleType | None:
    """The kernels beside this module, for GPUs, without gradients, and up to float32; None
    where the operations of `diffcr.core.select` are to run. Under torch.compile those are fused."""
    # A subclass is a tensor in parts, or one that counts what is done with it; a trace would not
    # see a kernel.
    if (
        not hidden_states.is_cuda
        or type(hidden_states) is not Tensor
        or torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined]
        or hidden_states.dtype is torch.float64
    ):
        return None
    return _kernels_on(hidden_states.device)


@cache
def _kernels_on(device: torch.device) -> ModuleType | None:
    try:
        # Comes with torch's builds for GPUs alone.
        from diffcr.methods.diffcr import kernels
    except ImportError:
        return None
    try:
        tokens = torch.zeros(1, 2, 1, device=device)
        logits = kernels.score(tokens, torch.zeros(1, device=device))
        ranking, places = kernels.rank(logits, torch.arange(2, device=device))
        kept = kernels.gather(tokens, ranking, 1)
        kernels.put_back(tokens, kept, logits, places, "identity")
    # Triton's errors have no class in common, and torch's operations do the same.
    except Exception as reason:
        warn(
            f"Triton does not run on {device}, so that routing takes more and slower operations: "
            f"{reason} (a C compiler may be missing)",
            DiffCRWarning,
            stacklevel=2,
        )
        return None
    return kernels
