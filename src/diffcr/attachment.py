"""attach, detach and what reads an attached model."""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any
from warnings import warn

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from diffcr import lora
from diffcr.call import begin_call, end_call, remove_call_hooks
from diffcr.compressor import Compressor
from diffcr.config import DenseConfig, DiffCRConfig, MethodConfig, RoutedConfig
from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.families import family_of, find_transformer, supported_models, unwrapped
from diffcr.families.family import Family
from diffcr.fingerprint import HostWeights
from diffcr.methods.diffcr import routed_forward, scaled_mlp_forward
from diffcr.seam import (
    BOUND_BLOCK,
    BOUND_MLP,
    BlockLayout,
    BoundBlock,
    BoundMLP,
    argument_names,
)

__all__ = [
    "attach",
    "detach",
    "disabled",
    "find_transformer",
    "get_compressor",
    "parameter_groups",
    "summary",
    "supported_models",
]


def get_compressor(pipe_or_transformer: Any) -> Compressor:
    """The compressor of an attached model.

    Raises:
        DiffCRError: DiffCR is not attached.
    """
    compressor = getattr(find_transformer(pipe_or_transformer), "diffcr", None)
    if not isinstance(compressor, Compressor):
        raise DiffCRError("DiffCR is not attached to this model: call diffcr.attach first")
    return compressor


def is_attached(transformer: nn.Module) -> bool:
    """Whether the transformer has a compressor."""
    return isinstance(getattr(transformer, "diffcr", None), Compressor)


def attach(pipe_or_transformer: Any, config: MethodConfig | None = None) -> Compressor:
    """Let a transformer's blocks compute only the tokens that their routers keep.

    A freshly attached model with the gate "identity" returns what the bare model returns, bit for
    bit. The host's blocks, parameters and state-dict keys stay as they are; the routers and ratios
    are added under `transformer.diffcr`.

    Args:
        pipe_or_transformer: A diffusers pipeline, or its transformer.
        config: Method and settings; `DiffCRConfig()` by default.

    Returns:
        The compressor. Attaching the same configuration again returns the one that is there.

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
        present = get_compressor(transformer)
        if present.config == config:
            return present
        raise DiffCRError(
            f"another configuration is attached ({present.config}): call diffcr.detach first"
        )
    blocks = _routed_blocks(transformer, family)
    for name, block, layout in blocks:
        _refuse_patched(name, block)
        if config.gate == "sigmoid-mlp":
            _refuse_patched(f"{name}.{layout.mlp}", getattr(block, layout.mlp))
    compressor = make_compressor(transformer, config)
    transformer.add_module("diffcr", compressor)
    rows: dict[str, int] = {}
    for layer, (name, block, layout) in enumerate(blocks):
        group = name.rsplit(".", 1)[0]
        row = rows[group] = rows.get(group, -1) + 1
        _bind(block, layout, compressor, layer=layer, group=group, row=row)
    transformer.register_forward_pre_hook(begin_call, with_kwargs=True)
    transformer.register_forward_hook(end_call, always_call=True)
    vars(transformer)["save_pretrained"] = types.MethodType(_refuse_save, transformer)
    return compressor


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


def make_compressor(transformer: nn.Module, config: RoutedConfig) -> Compressor:
    """The compressor of a transformer, on its device, not yet attached to it."""
    family = family_of(transformer)
    host_config: Any = transformer.config
    layers = {group: len(getattr(transformer, group)) for group in family.block_groups}
    device = next(transformer.parameters()).device
    width = prod(host_config[key] for key in family.width)
    compressor = Compressor(config, layers, width, device, HostWeights.of(transformer))
    return compressor.train(transformer.training)


def _bind(
    block: nn.Module,
    layout: BlockLayout,
    compressor: Compressor,
    *,
    layer: int,
    group: str,
    row: int,
) -> None:
    host_forward = type(block).forward
    bound = BoundBlock(
        compressor, layer, group, row, host_forward, argument_names(host_forward), layout
    )
    vars(block)[BOUND_BLOCK] = bound
    vars(block)["forward"] = types.MethodType(routed_forward, block)
    if compressor.config.gate == "sigmoid-mlp":
        mlp = getattr(block, layout.mlp)
        vars(mlp)[BOUND_MLP] = BoundMLP(bound, type(mlp).forward)
        vars(mlp)["forward"] = types.MethodType(scaled_mlp_forward, mlp)


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
    weights_changed = get_compressor(transformer).base.have_changed(transformer)
    blocks = _routed_blocks(transformer, family_of(transformer))
    for name, block, _ in blocks:
        forward = vars(block).get("forward")
        if getattr(forward, "__func__", None) is not routed_forward:
            raise DiffCRError(
                f"{name}'s forward was patched after attach (offload, cache, compile?): "
                "remove that first"
            )
    for _, block, layout in blocks:
        del vars(block)["forward"], vars(block)[BOUND_BLOCK]
        mlp = getattr(block, layout.mlp)
        if vars(mlp).pop(BOUND_MLP, None) is not None:
            del vars(mlp)["forward"]
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
    compressor = get_compressor(transformer)
    previous, compressor.enabled = compressor.enabled, False
    try:
        with lora.adapters_off(transformer):
            yield
    finally:
        compressor.enabled = previous


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
    compressor = get_compressor(transformer)
    total = sum(p.numel() for p in transformer.parameters())
    added = sum(p.numel() for p in compressor.parameters())
    lines = [
        f"{type(transformer).__name__} with {compressor.config}",
        f"mean compression ratio: {compressor.mean_compression_ratio:.1%} learned, "
        f"{compressor.realised_mean_compression_ratio:.1%} realised",
        f"parameters: {added:,} of {total:,} are routers and ratios",
        "compression per layer (rows) and timestep region (columns, clean to noisy), per cent:",
    ]
    for layer, row in enumerate((compressor.compression_ratios * 100).round().int().tolist()):
        lines.append(f"  {layer:>3}  " + " ".join(f"{value:>3}" for value in row))
    return "\n".join(lines)
