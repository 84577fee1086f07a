"""Which low-rank adapters act: DiffCR's belongs to the method, the others are their owner's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from diffcr.errors import DiffCRError

ADAPTER = "diffcr"
_ADDED = "diffcr_lora"


@dataclass(frozen=True, eq=False)
class AddedLora:
    """Stored in the `__dict__` of a transformer that holds DiffCR's adapter.

    Attributes:
        trainable: Names of the parameters that required gradients before it was added.
        layers: Where it acts, of class `peft.tuners.lora.LoraLayer`, each with its scaling there.
    """

    trainable: frozenset[str]
    layers: tuple[tuple[Any, float], ...]


def added_lora(transformer: nn.Module) -> AddedLora | None:
    """What is remembered of DiffCR's adapter; None where none was added."""
    return vars(transformer).get(_ADDED)


def adapted_layers(transformer: nn.Module) -> Iterator[tuple[str, Any]]:
    """Layers with an adapter, DiffCR's or another, by name."""
    if getattr(transformer, "peft_config", None):
        yield from lora_layers(transformer)


def lora_layers(transformer: nn.Module) -> Iterator[tuple[str, Any]]:
    """As `adapted_layers`, also where peft stopped before it had added one everywhere."""
    from peft.tuners.lora import LoraLayer

    for name, module in transformer.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


@contextmanager
def beside_others(transformer: nn.Module) -> Iterator[None]:
    """Within the context DiffCR's adapter is injected; after it, it acts beside those that did,
    and it alone requires gradients, with what is attached.

    Raises:
        DiffCRError: The others are switched off or fused, which peft would undo.
    """
    acted = {}
    for name, layer in adapted_layers(transformer):
        if layer.disable_adapters:
            raise DiffCRError(
                "the model's adapters are switched off (disable_lora), and DiffCR's would be, too: "
                "call enable_lora() first; set_adapters([]) leaves out yours alone"
            )
        acted[name] = list(layer.active_adapters)
    require_unfused(transformer)
    remembered = added_lora(transformer)
    trainable = remembered.trainable if remembered else _trainable(transformer)
    try:
        yield
    finally:
        for name, layer in lora_layers(transformer):
            # `set_adapter` would also change requires_grad.
            layer._active_adapter = acted.get(name, [])
    layers = [
        (layer, layer.scaling[ADAPTER])
        for _, layer in adapted_layers(transformer)
        if ADAPTER in layer.r
    ]
    for layer, _ in layers:
        layer._active_adapter = [*layer.active_adapters, ADAPTER]
    for name, parameter in transformer.named_parameters():
        if is_added(name):
            parameter.requires_grad_(True)
        elif parameter.requires_grad:
            parameter.requires_grad_(False)
    vars(transformer)[_ADDED] = AddedLora(trainable, tuple(layers))


def is_added(name: str) -> bool:
    """Whether a parameter is DiffCR's, by its name in the transformer."""
    return name.startswith("diffcr.") or (".lora_" in name and f".{ADAPTER}." in name)


def forget_added(transformer: nn.Module) -> None:
    """After DiffCR's adapter was taken out: what required gradients before it does so again."""
    remembered = vars(transformer).pop(_ADDED, None)
    if remembered is None:
        return
    for name, parameter in transformer.named_parameters():
        if not is_added(name) and _plain_name(name) in remembered.trainable:
            parameter.requires_grad_(True)


def _trainable(transformer: nn.Module) -> frozenset[str]:
    named = transformer.named_parameters()
    return frozenset(_plain_name(name) for name, p in named if p.requires_grad)


def _plain_name(name: str) -> str:
    return name.replace(".base_layer.", ".")


def ensure_acts(transformer: nn.Module, arguments: Mapping[str, Any]) -> None:
    """Let DiffCR's adapter act in a call, whichever of the others were chosen since the last one.

    Raises:
        DiffCRError: It was removed, switched off, scaled or left out of a fusion with the others.
    """
    added = added_lora(transformer)
    if added is None:
        return
    if ADAPTER not in getattr(transformer, "peft_config", {}):
        raise DiffCRError(
            "DiffCR's LoRA was removed with the others (unload_lora_weights): load the checkpoint "
            "again; delete_adapters(name) removes one"
        )
    for layer, scaling in added.layers:
        if layer.disable_adapters:
            raise DiffCRError(
                "DiffCR's LoRA is switched off with the others (disable_lora): call enable_lora(); "
                "set_adapters([]) leaves out yours alone, and diffcr.disabled is the dense model"
            )
        if layer.merged and ADAPTER not in layer.merged_adapters:
            raise DiffCRError(
                f"{', '.join(layer.merged_adapters)} alone was fused, which leaves DiffCR's LoRA "
                f"out: call unfuse_lora(), then fuse_lora with {ADAPTER!r} among its adapter_names"
            )
        if layer.scaling[ADAPTER] != scaling:
            raise DiffCRError(
                "DiffCR's LoRA was scaled with the others (fuse_lora's lora_scale?): give a weight "
                "to yours alone, as set_adapters does"
            )
        if ADAPTER not in layer.active_adapters:
            layer._active_adapter = [*layer.active_adapters, ADAPTER]
    for name, value in arguments.items():
        if name.endswith("attention_kwargs") and value and value.get("scale", 1.0) != 1.0:
            raise DiffCRError(
                f"{name} has scale {value['scale']}, which would scale DiffCR's LoRA, too: give "
                "the weight to set_adapters"
            )


def require_unfused(transformer: nn.Module) -> None:
    """Raises DiffCRError where an adapter is fused into the model's own weights."""
    for _, layer in adapted_layers(transformer):
        if layer.merged:
            raise DiffCRError(
                f"adapters are fused into the model's weights ({', '.join(layer.merged_adapters)}):"
                " call unfuse_lora() first"
            )


@contextmanager
def lora_off(transformer: nn.Module) -> Iterator[None]:
    """Within the context DiffCR's adapter changes no layer's output; others do as before.

    Raises:
        DiffCRError: It is fused into the model's own weights.
    """
    added = added_lora(transformer)
    layers = [layer for layer, _ in added.layers] if added else []
    if any(ADAPTER in layer.merged_adapters for layer in layers):
        require_unfused(transformer)
    acted = [(layer, layer.active_adapters) for layer in layers if ADAPTER in layer.active_adapters]
    for layer, names in acted:
        layer._active_adapter = [name for name in names if name != ADAPTER]
    try:
        yield
    finally:
        for layer, names in acted:
            layer._active_adapter = names
