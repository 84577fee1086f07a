"""torch.compile for an attached model: a graph per number of kept tokens, not per layer."""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from diffcr.binding.attachment import forget_compiled
from diffcr.binding.cuda_graphs import CudaGraphBackend, graph_forwards
from diffcr.binding.model import attached_parts, get_attached
from diffcr.errors import DiffCRError
from diffcr.hosts import family_of
from diffcr.hosts.host import host_blocks
from diffcr.methods.bound import BOUND
from diffcr.methods.diffcr.branch import run_block, run_branch
from diffcr.methods.diffcr.compressor import Compressor

# Graphs per function: bins by numbers of masked tokens, where those vary (inpainting).
_RECOMPILE_LIMIT = 1024

Granularity = Literal["block", "model"]
CUDA_GRAPHS = "cuda-graphs"


def compile(pipe_or_transformer: Any, granularity: Granularity = "block", **options: Any) -> None:
    """Compile an attached model in place.

    Args:
        pipe_or_transformer: An attached pipeline or transformer; all of a pipeline's.
        granularity: "block" compiles one block and shares its graphs among layers: at most one per
            number of tokens and of kept ones and two more; for training and inference; for routed
            methods and structured pruning. "model" compiles the whole forward: at most one graph
            per timestep region and one more; for inference.
        options: For `torch.compile`, such as `mode="max-autotune"`, or `dynamic=True` for graphs
            that hold for any number of tokens; `fullgraph` is always True.
            `mode="cuda-graphs"` alone compiles nothing: forwards are captured as they are in a CUDA
            graph per timestep region, shapes of the inputs and acting adapters, and replayed. Calls
            that cannot be, with gradients for one, run as they are, and a warning says why. Frees
            its memory with `detach`.

    Raises:
        DiffCRError: Nothing is attached, or a method that keeps what steps computed; the model's
            blocks cannot be compiled; the forward that would be compiled is patched; or a method
            that tells blocks apart is to be compiled block by block.
    """
    captures = options.get("mode") == CUDA_GRAPHS
    if captures and (len(options) > 1 or granularity != "block"):
        raise DiffCRError(
            f'mode="{CUDA_GRAPHS}" captures whole forwards and takes no other option: give it alone'
        )
    for transformer in attached_parts(pipe_or_transformer).values():
        if captures:
            _capture(transformer)
        else:
            _compile(transformer, granularity, options)


def _capture(transformer: nn.Module) -> None:
    device = next(transformer.parameters()).device.type
    if device != CudaGraphBackend.device_type:
        raise DiffCRError(f"CUDA graphs need a CUDA GPU: the model is on {device}")
    graph_forwards(transformer, CudaGraphBackend())


def _compile(transformer: nn.Module, granularity: Granularity, options: dict[str, Any]) -> None:
    attached = get_attached(transformer)
    if attached.depends_on_steps:
        raise DiffCRError(
            f"{attached.config.method} keeps what steps computed, which a compiled forward would "
            "not see: run it uncompiled"
        )
    reason = family_of(transformer).refuse_compile
    if reason is not None:
        raise DiffCRError(f"{type(transformer).__name__} cannot be compiled: {reason}")
    allow_graph_per_shape()
    options = {"dynamic": False, **options, "fullgraph": True}
    if granularity == "block":
        if isinstance(attached, Compressor):
            _bind_parts(transformer, types.MethodType)
            attached.run_branch = torch.compile(run_branch, **options)
            attached.run_block = torch.compile(run_block, **options)
        elif attached.replaces_weights:
            for block in host_blocks(transformer):
                block.module.compile(**options)
        else:
            raise DiffCRError(
                f"{attached.config.method} tells blocks apart: compile with granularity='model'"
            )
    else:
        if "forward" in vars(transformer):
            raise DiffCRError(
                "the transformer's forward is patched already (offload, cache, compile?): "
                "compile first, then offload"
            )
        # The hooks that read the timestep stay outside of the graph. Bound anew, not closed over:
        # a deep copy runs the compiled forward on its own weights.
        compiled = torch.compile(type(transformer).forward, **options)
        vars(transformer)["forward"] = types.MethodType(compiled, transformer)


def _bind_parts(transformer: nn.Module, bind: Callable[[Any, nn.Module], Any]) -> None:
    """Bind what hangs on parts of blocks as methods, which a pickle would look for on the parts'
    classes, or as partial functions, which torch.compile tells apart by identity (torch 2.13): a
    graph per layer."""
    for block in host_blocks(transformer):
        for module in block.module.modules():
            if module is not block.module and BOUND in vars(module):
                bound = vars(module)["forward"]
                function = bound.func if isinstance(bound, partial) else bound.__func__
                vars(module)["forward"] = bind(function, module)


def allow_graph_per_shape() -> None:
    """Let torch compile a graph per number of tokens: its default limit of 8 is soon reached, and
    what is beyond it runs uncompiled."""
    config = torch._dynamo.config
    for limit in ("recompile_limit", "accumulated_recompile_limit"):
        setattr(config, limit, max(getattr(config, limit), _RECOMPILE_LIMIT))


def uncompile_blocks(transformer: nn.Module) -> None:
    """Undo `compile` of granularity "block" on an attached transformer."""
    attached = get_attached(transformer)
    if isinstance(attached, Compressor):
        attached.run_branch = attached.run_block = None
        _bind_parts(transformer, partial)
    else:
        forget_compiled(transformer)
