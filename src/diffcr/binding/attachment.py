"""attach and detach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, overload
from warnings import warn

from torch import nn

from diffcr.binding import lora
from diffcr.binding.acting import require_unfused
from diffcr.binding.calls import install_call_hooks, remove_call_hooks
from diffcr.binding.cuda_graphs import release_graphs
from diffcr.binding.model import attached_parts, get_attached, is_attached
from diffcr.binding.refusals import (
    refuse_beside,
    refuse_distributed,
    refuse_patched,
    refuse_unfit,
)
from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.hosts import family_of, find_transformers
from diffcr.hosts.host import Host, HostBlock, host_blocks
from diffcr.methods.base import Attached
from diffcr.methods.bound import BOUND, BoundBlock, BoundPart, argument_names
from diffcr.methods.config import MethodConfig
from diffcr.methods.diffcr.compressor import Compressor
from diffcr.methods.diffcr.config import DiffCRConfig, RoutedConfig
from diffcr.methods.registry import method_of
from diffcr.methods.seam import Seam


@overload
def attach(pipe_or_transformer: nn.Module, config: RoutedConfig | None = None) -> Compressor: ...
@overload
def attach(pipe_or_transformer: nn.Module, config: MethodConfig) -> Attached[Any, Any]: ...
@overload
def attach(
    pipe_or_transformer: Any, config: MethodConfig | None = None
) -> Attached[Any, Any] | dict[str, Attached[Any, Any]]: ...
def attach(
    pipe_or_transformer: Any, config: MethodConfig | None = None
) -> Attached[Any, Any] | dict[str, Attached[Any, Any]]:
    """Let a transformer's blocks compute only the tokens that a method keeps.

    A model with DiffCR freshly attached (gate "identity"), and one with another method at a ratio
    of 0, returns what the bare model returns, bit for bit. The host's modules and state-dict keys
    stay as they are, and its parameters, too, but for structured pruning, which puts others in
    their place: make an optimizer after it. What a method adds is under `transformer.diffcr`.

    On top of structured pruning, which binds no block, a second method may be attached. A step
    cache and one of the others may be attached in either order.

    Args:
        pipe_or_transformer: A diffusers pipeline, or its transformer.
        config: Method and settings; `DiffCRConfig()` by default.

    Returns:
        The method on the model: a `Compressor` with routers and ratios for `DiffCRConfig` and
        `MoDConfig`. Attaching the same configuration again returns what is there. For a pipeline of
        several transformers, such as Wan 2.2's experts, one each by their names in it.

    Raises:
        DiffCRError: The class is not supported, another configuration is attached, a block's
            forward is already patched, or the model is wrapped in DistributedDataParallel.
    """
    config = DiffCRConfig() if config is None else config
    refuse_distributed(pipe_or_transformer)
    parts = find_transformers(pipe_or_transformer)
    attached = {}
    present = [name for name, part in parts.items() if is_attached(part)]
    try:
        for name, part in parts.items():
            attached[name] = _attach(part, config)
    except DiffCRError:
        for name in attached.keys() - present:
            _detach(parts[name], restore=False)
        raise
    return attached if len(parts) > 1 else next(iter(attached.values()))


def _attach(transformer: nn.Module, config: MethodConfig) -> Attached[Any, Any]:
    method = method_of(config)
    seam = method.seam(config)
    stack = list(get_attached(transformer).stack()) if is_attached(transformer) else []
    for place, present in enumerate(stack):
        if present.config == config and (place == 0 or present.hooks_blocks):
            return present
    refuse_beside([present.config for present in stack], config, seam)
    host = Host.of(transformer, stack[0].base if stack else None)
    refuse_unfit(host, config)
    with _without_hooks(stack):
        for block in host.blocks if seam.block is not None else ():
            refuse_patched(block, seam)
        attached = method.build(config, host)
        _refuse_without_timesteps(transformer, attached)
        attached.train(transformer.training)
        if attached.hooks_blocks and stack:
            stack[-1].beneath = attached
        else:
            attached.beneath = stack[0] if stack else None
            transformer.add_module("diffcr", attached)
        if not attached.hooks_blocks:
            attached.enabled = True
        for layer, block in enumerate(host.blocks if seam.block is not None else ()):
            _bind(block, attached, layer, seam)
    if attached.hooks_blocks:
        _put_hooks_on(transformer, attached, stack)
    install_call_hooks(transformer)
    vars(transformer)["save_pretrained"] = partial(_refuse_save, transformer)
    return attached


@contextmanager
def _without_hooks(stack: Sequence[Attached[Any, Any]]) -> Iterator[list[Attached[Any, Any]]]:
    """Within the context no method hooks what others bind: hooks go around what was bound. Yields
    the methods that hook again after it."""
    hooking = [method for method in stack if method.hooks_blocks and method.enabled]
    for method in hooking:
        method.enabled = False
    try:
        yield hooking
    finally:
        for method in hooking:
            method.enabled = True


def _put_hooks_on(
    transformer: nn.Module, attached: Attached[Any, Any], stack: Sequence[Attached[Any, Any]]
) -> None:
    try:
        attached.enabled = True
    except DiffCRError:
        if stack:
            stack[-1].beneath = None
        else:
            del transformer.diffcr
        raise


def _refuse_without_timesteps(transformer: nn.Module, attached: Attached[Any, Any]) -> None:
    if family_of(transformer).timestep is not None:
        return
    if attached.keeps_steps:
        raise DiffCRError(
            f"{type(transformer).__name__} is called once, without timesteps: attach "
            f"{attached.config.method} to the model that denoises"
        )
    if attached.reads_timesteps:
        raise DiffCRError(
            f"{type(transformer).__name__} is called without a timestep, and {attached.config} "
            "tells timesteps apart: give timestep_regions=1, or early_regions=0 for AT-EDM"
        )


def _bind(block: HostBlock, attached: Attached[Any, Any], layer: int, seam: Seam) -> None:
    assert seam.block is not None
    host_forward = type(block.module).forward
    bound = BoundBlock(
        attached,
        layer,
        block.group,
        block.row,
        host_forward,
        argument_names(host_forward),
        block.layout,
    )
    vars(block.module)[BOUND] = bound
    # Not a bound method, which a pickle would look for on the block's class.
    vars(block.module)["forward"] = partial(seam.block, block.module)
    for name, forward in seam.parts.items():
        part = block.module.get_submodule(getattr(block.layout, name))
        part_forward = type(part).forward
        vars(part)[BOUND] = BoundPart(bound, part_forward, argument_names(part_forward))
        vars(part)["forward"] = partial(forward, part)


def _refuse_save(transformer: nn.Module, *args: Any, **kwargs: Any) -> None:
    raise DiffCRError(
        "save_pretrained would drop what is attached, and its LoRA: call "
        "diffcr.save(model, directory), or diffcr.detach(model) first"
    )


def detach(pipe_or_transformer: Any, restore: bool = False) -> None:
    """Take everything attached off; the model computes all tokens as the bare model does.

    Host weights that were fine-tuned stay as they are, and a warning says so. With structured
    pruning the weights are again those from before `attach`, bit for bit: what was trained goes,
    with DiffCR's LoRA, which fits the pruned layers alone, and a warning says that.

    Args:
        pipe_or_transformer: An attached pipeline or transformer; all of a pipeline's.
        restore: Remove the LoRA that DiffCR added, too, and let those parameters require gradients
            that did before it. Without, it stays in place and a warning says so.

    Raises:
        DiffCRError: DiffCR is not attached, something was patched over a block since, or the LoRA
            that is to be removed is fused into the host's weights.
    """
    for transformer in attached_parts(pipe_or_transformer).values():
        _detach(transformer, restore)


def _detach(transformer: nn.Module, restore: bool) -> None:
    attached = get_attached(transformer)
    replacing = [method for method in attached.stack() if method.replaces_weights]
    trained_lora = lora.has_lora(transformer)
    removes_lora = restore or bool(replacing)
    if trained_lora and removes_lora:
        require_unfused(transformer)
    release_graphs(transformer)
    weights_changed = attached.base.have_changed(transformer)
    with _without_hooks(list(attached.stack())) as hooking:
        for method in attached.stack():
            _unbind(transformer, method_of(method.config).seam(method.config))
        hooking.clear()
    remove_call_hooks(transformer)
    vars(transformer).pop("save_pretrained", None)
    compiled = getattr(vars(transformer).get("forward"), "__func__", None)
    if getattr(compiled, "_torchdynamo_orig_callable", None) is type(transformer).forward:
        del vars(transformer)["forward"]
    if removes_lora:
        lora.remove_lora(transformer)
    if replacing:
        (first,) = replacing
        first.enabled = False
        forget_compiled(transformer)
        if weights_changed or (trained_lora and not restore):
            _warn(
                "the model is the dense one again, and what was trained with "
                f"{first.config.method} is gone from it, LoRA included: diffcr.save keeps it"
            )
    else:
        if weights_changed:
            _warn(
                "the model's own weights were fine-tuned with DiffCR and stay so: "
                "load the base model anew to have it as it was"
            )
        if trained_lora and not restore:
            _warn(
                "the LoRA that was trained with DiffCR stays in the model: "
                "detach(restore=True) removes it"
            )
    del transformer.diffcr


def _unbind(transformer: nn.Module, seam: Seam) -> None:
    blocks = [] if seam.block is None else host_blocks(transformer)
    for block in blocks:
        forward = vars(block.module).get("forward")
        if getattr(forward, "func", None) is not seam.block:
            raise DiffCRError(
                f"{block.name}'s forward was patched after attach (offload, cache, compile?): "
                "remove that first"
            )
    for block in blocks:
        parts = [block.module.get_submodule(getattr(block.layout, name)) for name in seam.parts]
        for module in (block.module, *parts):
            del vars(module)["forward"], vars(module)[BOUND]


def forget_compiled(transformer: nn.Module) -> None:
    """Undo `nn.Module.compile` on the blocks."""
    for block in host_blocks(transformer):
        vars(block.module).pop("_compiled_call_impl", None)


def _warn(message: str) -> None:
    warn(message, DiffCRWarning, stacklevel=4)
