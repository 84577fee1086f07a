"""attach, detach and what reads an attached model."""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, overload
from warnings import warn

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from diffcr import lora
from diffcr.attached import Attached
from diffcr.call import begin_call, end_call, remove_call_hooks
from diffcr.compressor import Compressor
from diffcr.config import (
    AttachedConfig,
    DenseConfig,
    DiffCRConfig,
    MethodConfig,
    RoutedConfig,
)
from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.families import family_of, find_transformer, supported_models, unwrapped
from diffcr.families.family import Family
from diffcr.fingerprint import HostWeights
from diffcr.methods.seams import HostFacts, MethodSeam, make_attached, seam_of
from diffcr.seam import (
    BOUND_BLOCK,
    BOUND_PART,
    BlockLayout,
    BoundBlock,
    BoundPart,
    argument_names,
)

__all__ = [
    "attach",
    "detach",
    "disabled",
    "find_transformer",
    "get_attached",
    "get_compressor",
    "parameter_groups",
    "summary",
    "supported_models",
]


def get_attached(pipe_or_transformer: Any) -> Attached[Any, Any]:
    """The method that is attached to a model.

    Raises:
        DiffCRError: There is none.
    """
    attached = getattr(find_transformer(pipe_or_transformer), "diffcr", None)
    if not isinstance(attached, Attached):
        raise DiffCRError("DiffCR is not attached to this model: call diffcr.attach first")
    return attached


def get_compressor(pipe_or_transformer: Any) -> Compressor:
    """The routers and ratios of an attached model.

    Raises:
        DiffCRError: DiffCR is not attached, or a method without routers is.
    """
    attached = get_attached(pipe_or_transformer)
    if not isinstance(attached, Compressor):
        raise DiffCRError(
            f"{attached.config.method} is attached, which has neither routers nor ratios"
        )
    return attached


def is_attached(transformer: nn.Module) -> bool:
    """Whether a method is attached to the transformer."""
    return isinstance(getattr(transformer, "diffcr", None), Attached)


def is_routed(transformer: nn.Module) -> bool:
    """Whether the transformer has routers and ratios."""
    return isinstance(getattr(transformer, "diffcr", None), Compressor)


@overload
def attach(pipe_or_transformer: Any, config: RoutedConfig | None = None) -> Compressor: ...
@overload
def attach(pipe_or_transformer: Any, config: MethodConfig) -> Attached[Any, Any]: ...
def attach(pipe_or_transformer: Any, config: MethodConfig | None = None) -> Attached[Any, Any]:
    """Let a transformer's blocks compute only the tokens that a method keeps.

    A model with DiffCR freshly attached (gate "identity"), and one with a training-free method at a
    ratio of 0, returns what the bare model returns, bit for bit. The host's blocks, parameters and
    state-dict keys stay as they are; what a method adds is under `transformer.diffcr`.

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
    layers = {group: len(getattr(transformer, group)) for group in family.block_groups}
    device = next(transformer.parameters()).device
    width = prod(host_config[key] for key in family.width)
    host = HostFacts(layers, width, device, HostWeights.of(transformer))
    attached = make_attached(config, host)
    if attached.reads_timesteps and family.timestep is None:
        raise DiffCRError(
            f"{type(transformer).__name__} is called without a timestep, and {config} tells "
            "timesteps apart: give timestep_regions=1, or early_regions=0 for AT-EDM"
        )
    return attached.train(transformer.training)


def _bind(block: nn.Module, bound: BoundBlock[Any], seam: MethodSeam) -> None:
    vars(block)[BOUND_BLOCK] = bound
    vars(block)["forward"] = types.MethodType(seam.block, block)
    for name, forward in seam.parts.items():
        part = getattr(block, getattr(bound.layout, name))
        host_forward = type(part).forward
        vars(part)[BOUND_PART] = BoundPart(bound, host_forward, argument_names(host_forward))
        vars(part)["forward"] = types.MethodType(forward, part)


def _refuse_save(transformer: nn.Module, *args: Any, **kwargs: Any) -> None:
    raise DiffCRError(
        "save_pretrained would drop routers, ratios and LoRA: call diffcr.save(model, directory), "
        "or diffcr.detach(model) first"
    )


def detach(pipe_or_transformer: Any, restore: bool = False) -> None:
    """Take routers and ratios off; the model computes all tokens as the bare model does.

    Host weights that were fine-tuned stay as they are, and a warning says so.

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
    blocks = _routed_blocks(transformer, family_of(transformer))
    seam = seam_of(attached.config)
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


@contextmanager
def disabled(pipe_or_transformer: Any) -> Iterator[None]:
    """Within the context the model is the dense one: all tokens, no gate, adapters off. Host
    weights that were fine-tuned stay as they are."""
    transformer = find_transformer(pipe_or_transformer)
    attached = get_attached(transformer)
    previous, attached.enabled = attached.enabled, False
    try:
        with lora.adapters_off(transformer):
            yield
    finally:
        attached.enabled = previous


def parameter_groups(
    transformer: nn.Module,
    lr: float,
    router_lr: float | None = None,
    ratio_lr: float | None = None,
    weight_decay: float = 0.0,
) -> list[dict[str, Any]]:
    """Groups for an own optimizer: no weight decay on routers and ratios, which it would pull.

    Args:
        transformer: An attached pipeline or transformer.
        lr: Learning rate of the trainable host and adapter weights.
        router_lr: Of the routers, `lr` by default.
        ratio_lr: Of the ratios, `router_lr` by default.
        weight_decay: Of the host and adapter weights.

    Raises:
        DiffCRError: Routers and ratios are frozen: injecting a LoRA through peft itself freezes
            everything else. Ratios frozen alone stay as they are set.
    """
    host = find_transformer(transformer)
    compressor = get_compressor(host)
    if not any(parameter.requires_grad for parameter in compressor.parameters()):
        raise DiffCRError(
            "routers and ratios are frozen (peft freezes what is not its own): "
            "call compressor.requires_grad_(True) first"
        )
    router_lr = lr if router_lr is None else router_lr
    ratio_lr = router_lr if ratio_lr is None else ratio_lr
    weights = [
        p for n, p in host.named_parameters() if p.requires_grad and not n.startswith("diffcr.")
    ]
    routers = [p for p in compressor.routers.values() if p.requires_grad]
    ratios = [compressor.ratios] if compressor.ratios.requires_grad else []
    groups = [
        {"params": weights, "lr": lr, "weight_decay": weight_decay},
        {"params": routers, "lr": router_lr, "weight_decay": 0.0},
        {"params": ratios, "lr": ratio_lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def summary(pipe_or_transformer: Any) -> str:
    """What is attached, as text: configuration, ratios per layer and region, parameters."""
    transformer = find_transformer(pipe_or_transformer)
    attached = get_attached(transformer)
    total = sum(p.numel() for p in transformer.parameters())
    added = sum(p.numel() for p in attached.parameters())
    lines = [
        f"{type(transformer).__name__} with {attached.config}",
        f"parameters: {added:,} of {total:,} were added",
        *attached.summary_lines(),
    ]
    return "\n".join(lines)
