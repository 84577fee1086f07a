"""Hooks on the transformer that open and close the context of one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from diffcr.binding.acting import ensure_acts
from diffcr.binding.noise_levels import read_noise_levels
from diffcr.errors import DiffCRError
from diffcr.hosts import family_of
from diffcr.hosts.family import Family
from diffcr.methods.base import Attached, TransformerCall
from diffcr.methods.bound import BOUND, argument_names

_CHECKPOINT = "_gradient_checkpointing_func"


class CheckpointInContext:
    """A gradient-checkpointing function whose recomputation runs in the context of its own call.

    Backward may run when another call's context, or none, is current: with two forwards before one
    backward a block would else be recomputed for the wrong region. It holds nothing of a call, so
    that threads may share it.
    """

    def __init__(self, checkpoint: Callable[..., Any], attached: Attached[Any, Any]) -> None:
        self.checkpoint = checkpoint
        self.attached = attached

    def __call__(self, block: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Checkpoint a block, as the host's own function does."""
        current = self.attached.current
        call, context = current.call, current.context

        # diffusers' own functions take positions alone, and some of its models pass names.
        def run(*inputs: Any) -> Any:
            with self.attached.entering(call, context):
                return block(*inputs, **kwargs)

        return self.checkpoint(run, *args)


def install_call_hooks(transformer: Any) -> None:
    """Open a context before every forward of the transformer and close it after."""
    remove_call_hooks(transformer)
    transformer.register_forward_pre_hook(_open_call, with_kwargs=True)
    transformer.register_forward_hook(_close_call, always_call=True)


# Under torch.compile it stays outside of the graphs, which are guarded on what it finds.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _open_call(transformer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Forward pre-hook: read the timestep, plan the layers, let recomputation find the plan."""
    attached = transformer.diffcr
    assert isinstance(attached, Attached)
    if not any(method.enabled for method in attached.stack()):
        return
    family, arguments = family_of(transformer), named_arguments(transformer, args, kwargs)
    _refuse_compiled_blocks(transformer, family)
    ensure_acts(transformer, arguments)
    _bring_along(transformer, _first_tensor(arguments[family.latents]).device)
    call = _read_call(transformer, arguments)
    checkpoints = torch.is_grad_enabled() and getattr(transformer, "gradient_checkpointing", False)
    if checkpoints and attached.depends_on_steps and not attached.training:
        raise DiffCRError(
            f"{attached.config.method} cannot compute a step's blocks twice: call "
            "disable_gradient_checkpointing() first"
        )
    if checkpoints:
        _refuse_checkpointing(transformer, arguments)
    for method in attached.stack():
        if method.enabled:
            context = method.build_context(call)
            method.current.call, method.current.context = call, context
    if checkpoints:
        checkpoint = getattr(transformer, _CHECKPOINT)
        if not isinstance(checkpoint, CheckpointInContext):
            setattr(transformer, _CHECKPOINT, CheckpointInContext(checkpoint, attached))


def _refuse_compiled_blocks(transformer: Any, family: Family) -> None:
    for group in family.block_groups:
        for row, block in enumerate(getattr(transformer, group)):
            if BOUND in vars(block) and block._compiled_call_impl is not None:
                raise DiffCRError(
                    f"{group}.{row} is compiled by itself (compile_repeated_blocks?), which takes "
                    "a graph per layer: load the model anew and call diffcr.compile(model)"
                )


def _bring_along(transformer: Any, device: torch.device) -> None:
    """Move what is attached to where a call computes: leaf-level group offload, which moves a
    module's parameters around its forward, would leave it behind, as no forward is called."""
    refuse_disk_offload(transformer)
    attached = transformer.diffcr
    for module in attached.modules():
        group = _offload_group(module)
        # A stream's group brings the values that it had when it was made, not what they are.
        if group is not None and group.stream is None:
            group.onload_()
    own = [*attached.parameters(), *attached.buffers()]
    # On the meta device operations are counted.
    if device.type == "meta" or all(tensor.device == device for tensor in own):
        return
    if any(tensor.is_meta for tensor in own):
        raise DiffCRError(
            "routers and ratios are offloaded layer by layer (sequential CPU offload), which moves "
            "them in no call: use enable_model_cpu_offload or enable_group_offload"
        )
    for tensor in own:
        tensor.data = tensor.data.to(device)


def _offload_group(module: Any) -> Any:
    """The group that diffusers' group offload made of a module's own parameters, or None."""
    registry = getattr(module, "_diffusers_hook", None)
    hook = registry and registry.get_hook("group_offloading")
    return hook and hook.group


def refuse_disk_offload(transformer: Any) -> None:
    """Raises DiffCRError where group offload keeps routers and ratios in files, out of reach."""
    for module in (transformer, transformer.diffcr):
        group = _offload_group(module)
        if group and group.offload_to_disk_path is not None:
            raise DiffCRError(
                "group offload to the disk takes routers and ratios away (offload_to_disk_path): "
                "load the model anew and offload to the CPU"
            )


def _read_call(transformer: Any, arguments: Mapping[str, Any]) -> TransformerCall:
    attached, family = transformer.diffcr, family_of(transformer)
    refuse_call(transformer, family, arguments)
    levels = None
    if any(method.reads_timesteps for method in attached.stack()):
        scale = family.noise_scale(transformer.config)
        assert scale is not None
        levels = read_noise_levels(attached, scale, arguments.get(scale.argument))
    needs_grid = any(method.needs_grid for method in attached.stack())
    find_grid = (family.read_grid if needs_grid else None) or family.grid
    return TransformerCall(
        levels,
        find_grid(transformer, arguments),
        _first_tensor(arguments[family.latents]).device,
        None if family.token_positions is None else arguments[family.token_positions],
        None if family.conditioning is None else _first_tensor(arguments.get(family.conditioning)),
        None if family.starts is None else family.starts(transformer, arguments),
    )


def refuse_call(transformer: Any, family: Family, arguments: Mapping[str, Any]) -> None:
    """Raises DiffCRError where the family says that a call cannot be routed."""
    parallel = getattr(transformer, "_parallel_config", None)
    if parallel is not None and parallel.context_parallel_config is not None:
        raise DiffCRError(
            "context parallel splits a sample's tokens among devices, and what is attached has to "
            "see all of them: load the model without enable_parallelism"
        )
    reason = family.refuse and family.refuse(transformer.config, arguments)
    if reason:
        raise DiffCRError(f"{type(transformer).__name__}: {reason}")


def _refuse_checkpointing(transformer: nn.Module, arguments: Mapping[str, Any]) -> None:
    refuse = family_of(transformer).refuse_checkpointing
    reason = refuse and refuse(arguments)
    if reason:
        raise DiffCRError(
            f"{type(transformer).__name__} cannot be run with gradient checkpointing: {reason}"
        )


def _first_tensor(value: Any) -> Any:
    return value[0] if isinstance(value, (list, tuple)) else value


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _close_call(transformer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    """Forward hook, also after an error: nothing about the call stays."""
    attached = transformer.diffcr
    assert isinstance(attached, Attached)
    for method in attached.stack():
        if method.current.call is not None:
            method.current.call = method.current.context = None
            method.end_call()


def remove_call_hooks(transformer: nn.Module) -> None:
    """Take everything off that calls need, from a deep copy too: its handles would point at the
    original."""
    for key, hook in list(transformer._forward_pre_hooks.items()):
        if hook is _open_call:
            del transformer._forward_pre_hooks[key]
            transformer._forward_pre_hooks_with_kwargs.pop(key, None)
    for key, hook in list(transformer._forward_hooks.items()):
        if hook is _close_call:
            del transformer._forward_hooks[key]
            transformer._forward_hooks_always_called.pop(key, None)
    checkpoint = getattr(transformer, _CHECKPOINT, None)
    if isinstance(checkpoint, CheckpointInContext):
        setattr(transformer, _CHECKPOINT, checkpoint.checkpoint)


def named_arguments(
    transformer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Arguments of a transformer's forward by name, whichever way they were passed."""
    if not args:
        return kwargs
    names = argument_names(type(transformer).forward)
    return {**dict(zip(names, args, strict=False)), **kwargs}
