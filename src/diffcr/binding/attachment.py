"""attach and detach."""

from __future__ import annotations

from functools import partial
from typing import Any, overload
from warnings import warn

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from diffcr.binding import lora
from diffcr.binding.acting import require_unfused
from diffcr.binding.calls import install_call_hooks, refuse_call, remove_call_hooks
from diffcr.binding.model import get_attached, is_attached
from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.hosts import find_transformer, is_sharded, unwrapped
from diffcr.hosts.host import Host, HostBlock, host_blocks
from diffcr.methods.base import Attached
from diffcr.methods.bound import BOUND, BoundBlock, BoundPart, argument_names
from diffcr.methods.config import MethodConfig
from diffcr.methods.diffcr.compressor import Compressor
from diffcr.methods.diffcr.config import DiffCRConfig, RoutedConfig
from diffcr.methods.registry import method_of
from diffcr.methods.seam import Seam


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

    On top of structured pruning, which binds no block, a second method may be attached.

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
    config = DiffCRConfig() if config is None else config
    _refuse_distributed(pipe_or_transformer)
    transformer = find_transformer(pipe_or_transformer)
    method = method_of(config)
    seam = method.seam(config)
    beneath = get_attached(transformer) if is_attached(transformer) else None
    if beneath is not None:
        if beneath.config == config:
            return beneath
        _refuse_second(beneath, seam)
    host = Host.of(transformer, None if beneath is None else beneath.base)
    _refuse_unfit(host, config)
    for block in host.blocks if seam.block is not None else ():
        _refuse_patched(block, seam)
    attached = method.build(config, host)
    if attached.keeps_steps and host.family.timestep is None:
        raise DiffCRError(
            f"{type(transformer).__name__} is called once, without timesteps: attach "
            f"{config.method} to the model that denoises"
        )
    if attached.reads_timesteps and host.family.timestep is None:
        raise DiffCRError(
            f"{type(transformer).__name__} is called without a timestep, and {config} tells "
            "timesteps apart: give timestep_regions=1, or early_regions=0 for AT-EDM"
        )
    attached.train(transformer.training)
    attached.beneath = beneath
    transformer.add_module("diffcr", attached)
    attached.enabled = True
    for layer, block in enumerate(host.blocks if seam.block is not None else ()):
        _bind(block, attached, layer, seam)
    install_call_hooks(transformer)
    vars(transformer)["save_pretrained"] = partial(_refuse_save, transformer)
    return attached


def _refuse_second(present: Attached[Any, Any], seam: Seam) -> None:
    if seam.block is None or method_of(present.config).seam(present.config).block is not None:
        raise DiffCRError(
            f"another configuration is attached ({present.config}): call diffcr.detach first"
        )


def _refuse_unfit(host: Host, config: MethodConfig) -> None:
    """Refuse a method that the model's blocks cannot be run with, and blocks of another kind."""
    refuse_call(host.transformer, host.family, {})
    name = type(host.transformer).__name__
    for layout in host.family.block_groups.values():
        reason = method_of(config).refuses(config, layout)
        if reason is not None:
            raise DiffCRError(f"{name} cannot be run with method {config.method!r}: {reason}")
    for block in host.blocks:
        unknown = block.layout.arguments - {*argument_names(type(block.module).forward)}
        if unknown:
            raise DiffCRError(
                f"{name}'s blocks ({type(block.module).__name__}) take no "
                f"{', '.join(sorted(unknown))}: family {host.family.name!r} is written for another "
                "version of diffusers"
            )


def _refuse_patched(block: HostBlock, seam: Seam) -> None:
    attributes = [getattr(block.layout, part) for part in seam.parts]
    modules = {block.name: block.module}
    modules |= {f"{block.name}.{name}": block.module.get_submodule(name) for name in attributes}
    for name, module in modules.items():
        if "forward" in vars(module):
            raise DiffCRError(
                f"{name} already has a patched forward (a diffusers or accelerate hook?), which "
                "would stop firing: attach first, then offload or cache"
            )


def _refuse_distributed(pipe_or_transformer: Any) -> None:
    if not isinstance(pipe_or_transformer, nn.Module):
        return
    for layer in unwrapped(pipe_or_transformer):
        if isinstance(layer, DistributedDataParallel) or is_sharded(layer):
            kind = "sharded" if is_sharded(layer) else "wrapped in DistributedDataParallel"
            raise DiffCRError(
                f"the model is {kind}, which would not synchronise routers and ratios: attach "
                "first, then wrap"
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
        pipe_or_transformer: An attached pipeline or transformer.
        restore: Remove the LoRA that DiffCR added, too, and let those parameters require gradients
            that did before it. Without, it stays in place and a warning says so.

    Raises:
        DiffCRError: DiffCR is not attached, something was patched over a block since, or the LoRA
            that is to be removed is fused into the host's weights.
    """
    transformer = find_transformer(pipe_or_transformer)
    attached = get_attached(transformer)
    *_, first = attached.stack()
    trained_lora = lora.has_lora(transformer)
    removes_lora = restore or first.replaces_weights
    if trained_lora and removes_lora:
        require_unfused(transformer)
    weights_changed = attached.base.have_changed(transformer)
    for method in attached.stack():
        _unbind(transformer, method_of(method.config).seam(method.config))
    remove_call_hooks(transformer)
    vars(transformer).pop("save_pretrained", None)
    compiled = getattr(vars(transformer).get("forward"), "__func__", None)
    if getattr(compiled, "_torchdynamo_orig_callable", None) is type(transformer).forward:
        del vars(transformer)["forward"]
    if removes_lora:
        lora.remove_lora(transformer)
    if first.replaces_weights:
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
    warn(message, DiffCRWarning, stacklevel=3)
