"""Forwards of an attached transformer, captured once and replayed inside the caller's own pipeline.

A graph is a list of operations on tensors that stay where they are. So it holds for calls that run
the same operations, which the key tells, and while the model is the one that was captured, which
`ModelState` tells; everything else runs as it would without.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, NamedTuple, Protocol
from warnings import warn

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from diffcr.binding.model_state import ModelState
from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.methods.base import Attached

GRAPHS = "diffcr_graphs"
# Regions by shapes by halves of guidance that are called apart; the one that waited longest goes.
_MOST_GRAPHS = 64
# As torch's own `make_graphed_callables`: libraries set themselves up in the first calls.
_CALLS_BEFORE = 3
_PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.device)


class CaptureError(Exception):
    """The call does what a graph cannot hold, such as waiting for the GPU."""


class Replay(Protocol):
    """A captured call."""

    def __call__(self) -> Any:
        """Run it again on the tensors that it was captured with; its output, in the same place."""


class Backend(Protocol):
    """What captures.

    Attributes:
        device_type: Of the tensors that it can capture.
    """

    device_type: str

    def capture(self, call: Callable[[], Any]) -> Replay:
        """Run a call and record it.

        Raises:
            CaptureError: It does what cannot be recorded.
        """


class CudaGraphBackend:
    """torch's CUDA graphs, which share one pool of memory: they run one after the other."""

    device_type = "cuda"

    def __init__(self) -> None:
        self._pool: Any = None

    def capture(self, call: Callable[[], Any]) -> Replay:
        """As `Backend.capture`."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_CALLS_BEFORE):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                output = call()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise CaptureError(str(error).strip().splitlines()[0].rstrip(".")) from error

        def replay() -> Any:
            graph.replay()
            return output

        return replay


class _Graph(NamedTuple):
    """One captured call: the tensors that it reads, what else has to stay alive, how to run it."""

    inputs: list[Any]
    held: Any
    replay: Replay


class ForwardGraphs:
    """The graphs of one transformer.

    Attributes:
        captured: How many were captured since the beginning.
        fallbacks: Why calls ran without a graph, and how often.
    """

    def __init__(self, backend: Backend) -> None:
        self.captured = 0
        self.fallbacks: dict[str, int] = {}
        self._backend = backend
        self._graphs: OrderedDict[Hashable, _Graph | str] = OrderedDict()
        self._state: ModelState | None = None
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> ForwardGraphs:
        return ForwardGraphs(type(self._backend)())

    def __reduce__(self) -> tuple[type[ForwardGraphs], tuple[Backend]]:
        return ForwardGraphs, (type(self._backend)(),)

    def __len__(self) -> int:
        return sum(isinstance(graph, _Graph) for graph in self._graphs.values())

    def release(self) -> None:
        """Forget all graphs, which frees their memory."""
        with self._lock:
            self._graphs.clear()
            self._state = None

    def forward(self, transformer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The transformer's forward within an open call, replayed where it can be."""
        host_forward = partial(type(transformer).forward, transformer)
        leaves, structure = tree_flatten((args, kwargs))
        is_open = transformer.diffcr.current.call is not None
        plan = _context_key(transformer) if is_open else None
        reason = self._refuse(transformer, leaves, plan)
        if reason is not None:
            return self._run_without(reason, host_forward, args, kwargs)
        assert plan is not None
        with self._lock:
            if self._state is None or not self._state.holds():
                # Weights moved or were replaced, or adapters changed: all graphs read the old ones.
                self._graphs.clear()
                self._state = ModelState(transformer)
            elsewhere = self._state.devices - {self._backend.device_type}
            if elsewhere:
                reason = f"weights are on {', '.join(sorted(elsewhere))} (offloaded?)"
                return self._run_without(reason, host_forward, args, kwargs)
            key = (structure, *map(_described, leaves), *plan)
            graph = self._graphs.get(key)
            if graph is None:
                graph = self._capture(transformer, host_forward, leaves, structure)
                self._keep(key, graph)
            if isinstance(graph, _Graph):
                self._graphs.move_to_end(key)
                for static, given in zip(graph.inputs, leaves, strict=True):
                    if isinstance(static, Tensor):
                        static.copy_(given)
                return tree_map(_copied, graph.replay())
        return self._run_without(graph, host_forward, args, kwargs)

    def _capture(
        self, transformer: Any, host_forward: Callable[..., Any], leaves: list[Any], structure: Any
    ) -> _Graph | str:
        static = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        args, kwargs = tree_unflatten(static, structure)
        try:
            replay = self._backend.capture(lambda: host_forward(*args, **kwargs))
        except CaptureError as error:
            return f"cannot be captured: {error}"
        self.captured += 1
        contexts = [method.current.context for method in transformer.diffcr.stack()]
        # A plan's tensors are constants of the graph.
        return _Graph(static, contexts, replay)

    def _keep(self, key: Hashable, graph: _Graph | str) -> None:
        self._graphs[key] = graph
        while len(self._graphs) > _MOST_GRAPHS:
            self._graphs.popitem(last=False)

    def _refuse(
        self, transformer: Any, leaves: list[Any], plan: tuple[Hashable, ...] | None
    ) -> str | None:
        attached = transformer.diffcr
        if torch.is_grad_enabled() or transformer.training:
            return "gradients are on: call within torch.no_grad(), in eval mode"
        if attached.current.call is None:
            return "what is attached is disabled"
        if plan is None:
            return "its samples lie in several timestep regions, or rankings are held"
        for leaf in leaves:
            if isinstance(leaf, Tensor):
                if leaf.device.type != self._backend.device_type:
                    return f"an input is on {leaf.device.type}"
            elif not isinstance(leaf, _PLAIN):
                return f"an input is a {type(leaf).__name__}"
        return None

    def _run_without(
        self,
        reason: str,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if reason not in self.fallbacks:
            warn(f"a call ran without a CUDA graph: {reason}", DiffCRWarning, stacklevel=6)
        self.fallbacks[reason] = self.fallbacks.get(reason, 0) + 1
        return forward(*args, **kwargs)


def graph_forwards(transformer: Any, backend: Backend) -> ForwardGraphs:
    """Replay the transformer's forwards from now on.

    Raises:
        DiffCRError: A method keeps what steps computed, or the forward is patched.
    """
    attached: Attached[Any, Any] = transformer.diffcr
    if attached.depends_on_steps:
        raise DiffCRError(
            f"{attached.config.method} keeps what steps computed, which a graph would not see: run "
            "it without"
        )
    if "forward" in vars(transformer):
        raise DiffCRError(
            "the transformer's forward is patched already (offload, cache, compile?): "
            "call diffcr.compile first, then offload"
        )
    graphs = ForwardGraphs(backend)
    vars(transformer)[GRAPHS] = graphs
    # Not a bound method, which a pickle would look for on the class.
    vars(transformer)["forward"] = partial(_graphed_forward, transformer)
    return graphs


def release_graphs(transformer: nn.Module) -> None:
    """Undo `graph_forwards`; nothing where it was not called.

    Raises:
        DiffCRError: The forward was patched over since.
    """
    graphs = vars(transformer).get(GRAPHS)
    if graphs is None:
        return
    forward = vars(transformer).get("forward")
    if getattr(forward, "func", None) is not _graphed_forward:
        raise DiffCRError(
            "the transformer's forward was patched after diffcr.compile (offload, cache?): remove "
            "that first"
        )
    graphs.release()
    del vars(transformer)["forward"], vars(transformer)[GRAPHS]


def _graphed_forward(transformer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Takes the place of the transformer's forward."""
    return vars(transformer)[GRAPHS].forward(transformer, args, kwargs)


def _context_key(transformer: Any) -> tuple[Hashable, ...] | None:
    """What of the open call decides which operations run; None where it is not only that."""
    keys = [method.graph_key() for method in transformer.diffcr.stack() if method.enabled]
    if None in keys:
        return None
    device = next(transformer.parameters()).device.type
    return (*keys, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))


def _described(leaf: Any) -> Hashable:
    if isinstance(leaf, Tensor):
        return (leaf.shape, leaf.dtype, leaf.device, leaf.stride())
    # 1, 1.0 and True are one key.
    return (type(leaf), leaf)


def _copied(value: Any) -> Any:
    # The next replay writes where this one did.
    return value.clone() if isinstance(value, Tensor) else value
