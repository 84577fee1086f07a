"""What was computed of a picture once is there for the next stroke on it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_SAMPLES = 4


class TensorCache:
    """The latest results by what they were computed from; threads may share one.

    A result is used again only where every value that the model was given is the same. Tokens of
    an earlier, larger mask would fit in shape, but they were computed without the pixels that the
    smaller mask leaves visible, and those of a smaller one with pixels that are hidden since.

    Args:
        size: Results that are kept, 0 or more; the one that was used longest ago goes first.
    """

    def __init__(self, size: int = 8) -> None:
        self.size = size
        self._results: dict[str, Tensor] = {}

    def get(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        """The result under a key, computed where it is not there."""
        result = self._results.get(key)
        if result is None:
            result = compute()
        # No dictionary changes once it is in place: other threads read a whole one, and what a race
        # drops is computed again.
        others = [item for item in self._results.items() if item[0] != key]
        self._results = dict([*others, (key, result)][max(len(others) + 1 - self.size, 0) :])
        return result

    def clear(self) -> None:
        """Forget everything."""
        self._results = {}


def cache_key(models: Sequence[nn.Module], *arrays: NDArray[Any]) -> str:
    """Identifies models as they are, by some values of every parameter, and what they are given."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    for model in models:
        weights = dict(model.named_parameters()) | dict(model.named_buffers())
        sampled = [_sample(name, weight.detach().flatten()) for name, weight in weights.items()]
        digest.update(torch.cat(sampled).cpu().numpy().tobytes())
        attached: Any = getattr(model, "diffcr", None)
        method = attached and (attached.config, attached.enabled)
        digest.update(f"{next(model.parameters()).dtype} {model.training} {method}".encode())
    return digest.hexdigest()


def _sample(name: str, values: Tensor) -> Tensor:
    """Some values of a weight, which training changes as a whole; all of a method's own, of which
    a caller may set a single one."""
    stride = 1 if name.startswith("diffcr.") else len(values) // _SAMPLES + 1
    return values[::stride].to(torch.float32)
