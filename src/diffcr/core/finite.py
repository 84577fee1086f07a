"""Numbers that are numbers."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from diffcr.core.sharded import own_part
from diffcr.errors import DiffCRError


def require_finite(what: str, tensors: Mapping[str, Tensor]) -> None:
    """Raises DiffCRError where a tensor holds NaN or infinity; `what` they are stands in front."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(own_part(tensor).isfinite().all()):
            raise DiffCRError(
                f"{what}: {name} is not finite (NaN or infinity), so training had diverged there: "
                "use an earlier one"
            )
