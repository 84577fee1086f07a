"""attach and detach."""

from __future__ import annotations

import types
from typing import Any, overload
from warnings import warn

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from diffcr.binding import lora
from diffcr.binding.calls import begin_call, end_call, remove_call_hooks
from diffcr.binding.model import get_attached, is_attached
from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.hosts import family_of, find_transformer, unwrapped
from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout
from diffcr.hosts.weights import HostWeights
from diffcr.methods.base import Attached
from diffcr.methods.bound import BOUND_BLOCK, BOUND_PART, BoundBlock, BoundPart, argument_names
from diffcr.methods.configurations import (
    AttachedConfig,
    DenseConfig,
    DiffCRConfig,
    MethodConfig,
    RoutedConfig,
)
from diffcr.methods.diffcr.compressor import Compressor
from diffcr.methods.registry import HostFacts, MethodSeam, make_attached, seam_of


@overload
def attach(pipe_or_transformer: Any, config: RoutedConfig | None = None) -> Compressor: ...
@overload
def attach(pipe_or_transformer: Any, config: MethodConfig) -> Attached[Any, Any]: ...
def attach(pipe_or_transformer: Any, config: MethodConfig | None = None) -> Attached[Any, Any]:
    """Let a transformer's blocks compute only the tokens that a method keeps.

    A model with DiffCR freshly attached (gate "identity"), and one with another method at a ratio
    of 0, returns what the bare model returns, bit for bit. The host's modules and state-dict keys
    stay as they are, and its parameters, too, but for structured pruning, which puts others in
    their place: make an optimizer after it. What a method adds is under `transformer.diffcr`.

    Args:
        pipe_or_transformer: A diffusers pipeline, or its transformer.
        config: Method and settings; `DiffCRConfig()` by default.

    Returns:
        The method on the model: a `Compressor` with routers and ratios for `DiffCRConfig` and
        `MoDConfig`. Attaching the same configuration again returns what is there.

    Raises:
        DiffCRError: The class is not supported, another configuration is attached, a block's
            forward is already patched, or the model is wrapped in DistributedDataParallel.
    """
    config = config or DiffCRConfig()
    if isinstance(pipe_or_transformer, nn.Module):
        _refuse_distributed(pipe_or_transformer)
    transformer = find_transformer(pipe_or_transformer)
    family = family_of(transformer)
    if isinstance(config, DenseConfig):
        raise DiffCRError("DenseConfig is the bare model: there is nothing to attach")
    if is_attached(transformer):
        present = get_attached(transformer)
        if present.config == config:
            return present
        raise DiffCRError(
            f"another configuration is attached ({present.config}): call diffcr.detach first"
        )
    blocks = _routed_blocks(transformer, family)
    seam = seam_of(config)
    for name, block, layout in blocks:
        _refuse_patched(name, block)
        for part in seam.parts:
            attribute = getattr(layout, part)
            _refuse_patched(f"{name}.{attribute}", getattr(block, attribute))
    attached = make_for(transformer, config)
    transformer.add_module("diffcr", attached)
    attached.enabled = True
    rows: dict[str, int] = {}
    for layer, (name, block, layout) in enumerate(blocks):
        group = name.rsplit(".", 1)[0]
        row = rows[group] = rows.get(group, -1) + 1
        forward = type(block).forward
        names = argument_names(forward)
        bound = BoundBlock(attached, layer, group, row, forward, names, layout)
        _bind(block, bound, seam)
    transformer.register_forward_pre_hook(begin_call, with_kwargs=True)
    transformer.register_forward_hook(end_call, always_call=True)
    vars(transformer)["save_pretrained"] = types.MethodType(_refuse_save, transformer)
    return attached


def _routed_blocks(
    transformer: nn.Module, family: Family
) -> list[tuple[str, nn.Module, BlockLayout]]:
    return [
        (f"{group}.{row}", block, layout)
        for group, layout in family.block_groups.items()
        for row, block in enumerate(getattr(transformer, group))
    ]


def host_blocks(transformer: nn.Module) -> list[nn.Module]:
    """The blocks of a supported transformer."""
    return [block for _, block, _ in _routed_blocks(transformer, family_of(transformer))]


def forget_compiled(transformer: nn.Module) -> None:
    """Undo `nn.Module.compile` on the blocks."""
    for block in host_blocks(transformer):
        vars(block).pop("_compiled_call_impl", None)


def _refuse_patched(name: str, module: nn.Module) -> None:
    if "forward" in vars(module):
        raise DiffCRError(
            f"{name} already has a patched forward (a diffusers or accelerate hook?), which would "
            "stop firing: attach first, then offload or cache"
        )


def _refuse_distributed(module: nn.Module) -> None:
    for layer in unwrapped(module):
        if isinstance(layer, DistributedDataParallel):
            raise DiffCRError(
                "the model is wrapped in DistributedDataParallel, which would not synchronise "
                "routers and ratios: attach first, then wrap"
            )


def make_for(transformer: nn.Module, config: AttachedConfig) -> Attached[Any, Any]:
    """A method's module for a transformer, on its device, not yet attached to it."""
    family = family_of(transformer)
    host_config: Any = transformer.config
    block = family.shape(host_config, 0).block
    host = HostFacts(transformer, family.block_groups, block, HostWeights.of(transformer))
    attached = make_attached(config, host)
    if attached.reads_timesteps and family.timestep is None:
        raise DiffCRError(
            f"{type(transformer).__name__} is called without a timestep, and {config} tells "
            "timesteps apart: give timestep_regions=1, or early_regions=0 for AT-EDM"
        )
    return attached.train(transformer.training)


def _bind(block: nn.Module, bound: BoundBlock[Any], seam: MethodSeam) -> None:
    if seam.block is None:
        return
    vars(block)[BOUND_BLOCK] = bound
    vars(block)["forward"] = types.MethodType(seam.block, block)
    for name, forward in seam.parts.items():
        part = getattr(block, getattr(bound.layout, name))
        host_forward = type(part).forward
        vars(part)[BOUND_PART] = BoundPart(bound, host_forward, argument_names(host_forward))
        vars(part)["forward"] = types.MethodType(forward, part)


def _refuse_save(transformer: nn.Module, *args: Any, **kwargs: Any) -> None:
    raise DiffCRError(
        "save_pretrained would drop what is attached, and its LoRA: call "
        "diffcr.save(model, directory), or diffcr.detach(model) first"
    )


def detach(pipe_or_transformer: Any, restore: bool = False) -> None:
    """Take the method off; the model computes all tokens as the bare model does.

    Host weights that were fine-tuned stay as they are, and a warning says so. With structured
    pruning the weights are again those from before `attach`, bit for bit: what was trained goes,
    with DiffCR's LoRA, which fits the pruned layers alone, and a warning says that.

    Args:
        pipe_or_transformer: An attached pipeline or transformer.
        restore: Remove the LoRA that DiffCR added, too. Without, it stays in place and a warning
            says so.

    Raises:
        DiffCRError: DiffCR is not attached, or something was patched over a block since.
    """
    transformer = find_transformer(pipe_or_transformer)
    attached = get_attached(transformer)
    weights_changed = attached.base.have_changed(transformer)
    seam = seam_of(attached.config)
    blocks = [] if seam.block is None else _routed_blocks(transformer, family_of(transformer))
    for name, block, _ in blocks:
        forward = vars(block).get("forward")
        if getattr(forward, "__func__", None) is not seam.block:
            raise DiffCRError(
                f"{name}'s forward was patched after attach (offload, cache, compile?): "
                "remove that first"
            )
    for _, block, layout in blocks:
        del vars(block)["forward"], vars(block)[BOUND_BLOCK]
        for part in (getattr(block, getattr(layout, name)) for name in seam.parts):
            del vars(part)["forward"], vars(part)[BOUND_PART]
    remove_call_hooks(transformer)
    vars(transformer).pop("save_pretrained", None)
    compiled = getattr(vars(transformer).get("forward"), "__func__", None)
    if getattr(compiled, "_torchdynamo_orig_callable", None) is type(transformer).forward:
        del vars(transformer)["forward"]
    if attached.replaces_weights:
        _put_weights_back(transformer, attached, weights_changed, restore)
        return
    del transformer.diffcr
    if weights_changed:
        warn(
            "the model's own weights were fine-tuned with DiffCR and stay so: "
            "load the base model anew to have it as it was",
            DiffCRWarning,
            stacklevel=2,
        )
    if not lora.has_lora(transformer):
        return
    if restore:
        lora.remove_lora(transformer)
    else:
        warn(
            "the LoRA that was trained with DiffCR stays in the model: "
            "detach(restore=True) removes it",
            DiffCRWarning,
            stacklevel=2,
        )


def _put_weights_back(
    transformer: nn.Module, attached: Attached[Any, Any], weights_changed: bool, restore: bool
) -> None:
    has_lora = lora.has_lora(transformer)
    if has_lora:
        lora.remove_lora(transformer)
    attached.enabled = False
    forget_compiled(transformer)
    del transformer.diffcr
    if weights_changed or (has_lora and not restore):
        warn(
            f"the model is the dense one again, and what was trained with "
            f"{attached.config.method} is gone from it, LoRA included: diffcr.save keeps it",
            DiffCRWarning,
            stacklevel=3,
        )
