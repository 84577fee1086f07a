"""A call replayed from a CUDA graph: what a GPU takes where it waits for no launch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffcr.errors import first_line

# As torch's own `make_graphed_callables`: libraries set themselves up in the first calls.
_CALLS_BEFORE = 3


class CaptureError(Exception):
    """The call does what a CUDA graph cannot hold, such as waiting for the GPU."""


class CapturedCall:
    """A call without arguments on tensors that stay where they are, captured when first called."""

    def __init__(self, call: Callable[[], Tensor]) -> None:
        self._call = call
        self._graph: torch.cuda.CUDAGraph | None = None
        self._output: Tensor | None = None

    def __call__(self) -> Tensor:
        """The call's output, the same tensor each time.

        Raises:
            CaptureError: The call cannot be captured.
        """
        if self._graph is None or self._output is None:
            self._graph, self._output = _capture(self._call)
        self._graph.replay()
        return self._output


def _capture(call: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_CALLS_BEFORE):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            output = call()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise CaptureError(first_line(error).rstrip(".")) from error
    return graph, output
