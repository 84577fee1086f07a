"""Hooks on the transformer that open and close the context of one call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from diffcr.errors import DiffCRError
from diffcr.hosts import family_of
from diffcr.methods.base import Attached, TransformerCall
from diffcr.methods.diffcr.compressor import Compressor

_CHECKPOINT = "_gradient_checkpointing_func"


class CheckpointInContext:
    """A gradient-checkpointing function whose recomputation runs in the context of its own call.

    Backward may run when another call's context, or none, is current: with two forwards before one
    backward a block would else be recomputed for the wrong region.
    """

    def __init__(
        self, checkpoint: Callable[..., Any], attached: Attached[Any, Any], context: Any
    ) -> None:
        self.checkpoint = checkpoint
        self.attached = attached
        self.context = context

    def __call__(self, block: Callable[..., Any], *args: Any) -> Any:
        """Checkpoint a block, as the host's own function does."""

        def run(*inputs: Any) -> Any:
            with self.attached.entering(self.context):
                return block(*inputs)

        return self.checkpoint(run, *args)


def begin_call(transformer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Forward pre-hook: read the timestep, plan the layers, let recomputation find the plan."""
    attached = transformer.diffcr
    assert isinstance(attached, Attached)
    if not attached.enabled:
        return
    if any(tensor.is_meta for tensor in chain(attached.parameters(), attached.buffers())):
        raise DiffCRError(
            "routers and ratios are offloaded layer by layer (sequential CPU offload), which moves "
            "them in no call: use enable_model_cpu_offload"
        )
    family = family_of(transformer)
    levels = None
    if attached.reads_timesteps:
        assert family.timestep is not None
        timestep = _argument(transformer, family.timestep, args, kwargs)
        if isinstance(attached, Compressor):
            timestep = _read_with_ratios(timestep, attached)
        levels = family.noise_levels(timestep)
    latents = _argument(transformer, family.latents, args, kwargs)
    rows, columns = (side // transformer.config.patch_size for side in latents.shape[-2:])
    positions = None
    if family.token_positions is not None:
        positions = _argument(transformer, family.token_positions, args, kwargs)
    call = TransformerCall(levels, rows, columns, latents.device, positions)
    context = attached.build_context(call)
    attached.begin_call(context)
    if torch.is_grad_enabled() and getattr(transformer, "gradient_checkpointing", False):
        checkpoint = CheckpointInContext(getattr(transformer, _CHECKPOINT), attached, context)
        setattr(transformer, _CHECKPOINT, checkpoint)


def _read_with_ratios(timestep: Any, compressor: Compressor) -> Any:
    """The timestep as numbers; an accelerator is waited for once, for it and the ratios."""
    if not isinstance(timestep, Tensor) or timestep.device != compressor.ratios.device:
        return timestep
    steps, ratios = timestep.detach().flatten(), compressor.ratios.detach().flatten()
    values = torch.cat([steps.to(ratios.dtype), ratios]).tolist()
    compressor.read_ratios(values[len(steps) :])
    return torch.tensor(values[: len(steps)])


def end_call(transformer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    """Forward hook, also after an error: nothing about the call stays."""
    attached = transformer.diffcr
    assert isinstance(attached, Attached)
    attached.end_call()
    checkpoint = getattr(transformer, _CHECKPOINT, None)
    if isinstance(checkpoint, CheckpointInContext):
        setattr(transformer, _CHECKPOINT, checkpoint.checkpoint)


def remove_call_hooks(transformer: nn.Module) -> None:
    """Take both hooks off, from a deep copy too: its handles would point at the original."""
    for key, hook in list(transformer._forward_pre_hooks.items()):
        if hook is begin_call:
            del transformer._forward_pre_hooks[key]
            transformer._forward_pre_hooks_with_kwargs.pop(key, None)
    for key, hook in list(transformer._forward_hooks.items()):
        if hook is end_call:
            del transformer._forward_hooks[key]
            transformer._forward_hooks_always_called.pop(key, None)


def _argument(
    transformer: nn.Module, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if name in kwargs:
        return kwargs[name]
    position = list(inspect.signature(type(transformer).forward).parameters).index(name) - 1
    return args[position] if position < len(args) else None
