"""A call replayed from a CUDA graph: what a GPU takes where it waits for no launch."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from diffcr.binding.cuda_graphs import CudaGraphBackend, Replay


class CapturedCall:
    """A call without arguments on tensors that stay where they are, captured when first called."""

    def __init__(self, call: Callable[[], Tensor]) -> None:
        self._call = call
        self._replay: Replay | None = None

    def __call__(self) -> Tensor:
        """The call's output, the same tensor each time.

        Raises:
            CaptureError: The call cannot be captured.
        """
        if self._replay is None:
            self._replay = CudaGraphBackend().capture(self._call)
        output: Tensor = self._replay()
        return output
