"""DiffCR's LoRA within the weights that it updates, for speed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from diffcr.binding import acting
from diffcr.binding.lora import has_lora
from diffcr.errors import DiffCRError
from diffcr.hosts import find_transformers
from diffcr.hosts.weights import is_quantised

# In the `__dict__` of a fused layer: its weights as they were.
_UNFUSED = "diffcr_unfused"


def fuse_lora(pipe_or_transformer: Any) -> None:
    """Add DiffCR's LoRA, and others that act, to the weights that they update: calls take no time
    for them, and differ by rounding, in the weights' own dtype. The weights as they were wait in
    the CPU's memory.

    Until `unfuse_lora` nothing can be saved, detached, trained or called as the dense model.

    Args:
        pipe_or_transformer: The transformer, or its pipeline; all of a pipeline's.

    Raises:
        DiffCRError: There is no DiffCR LoRA, adapters are fused already, or weights are quantised
            or not in memory.
    """
    transformers = find_transformers(pipe_or_transformer).values()
    for transformer in transformers:
        if not has_lora(transformer):
            raise DiffCRError("the model has no DiffCR LoRA to fuse: load a checkpoint with one")
        acting.require_unfused(transformer)
        acting.ensure_acts(transformer, {})
        for name, layer in acting.adapted_layers(transformer):
            weight = layer.base_layer.weight
            if weight.is_meta or is_quantised(weight):
                what = "holds no weights (offloaded?)" if weight.is_meta else "is quantised"
                raise DiffCRError(f"{name} {what}: a LoRA is fused into plain weights alone")
    try:
        for transformer in transformers:
            for _, layer in acting.adapted_layers(transformer):
                held = {n: p.detach().to("cpu", copy=True) for n, p in _weights_of(layer)}
                vars(layer)[_UNFUSED] = held
                layer.merge(adapter_names=layer.active_adapters)
    except BaseException:
        # Out of memory, or interrupted: no model is fused in part.
        unfuse_lora(pipe_or_transformer)
        raise


def unfuse_lora(pipe_or_transformer: Any) -> None:
    """Give weights that `fuse_lora` changed their values again, bit for bit; the LoRAs act beside
    them as before. Does nothing where nothing is fused."""
    for transformer in find_transformers(pipe_or_transformer).values():
        for _, layer in acting.adapted_layers(transformer):
            held = vars(layer).pop(_UNFUSED, None)
            if not layer.merged:
                continue
            layer.unmerge()
            for name, parameter in _weights_of(layer) if held else ():
                parameter.data.copy_(held[name])


def _weights_of(layer: Any) -> Iterator[tuple[str, nn.Parameter]]:
    """What fusing may change of an adapted layer."""
    named: Iterator[tuple[str, nn.Parameter]] = layer.base_layer.named_parameters(recurse=False)
    return named
