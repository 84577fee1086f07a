"""States that a model is measured in, put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within the context every submodule is in eval mode; then in the mode that it had."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def without_adapters(transformer: nn.Module) -> Iterator[None]:
    """Within the context the layers below the adapters stand in their place.

    For timing: an adapter that is merged into its layer costs nothing, and to merge and unmerge
    would round the layer's weights.
    """
    swapped = []
    for name, layer in list(transformer.named_modules()):
        base = getattr(layer, "base_layer", None)
        if isinstance(base, nn.Module) and hasattr(layer, "active_adapters"):
            parent, _, attribute = name.rpartition(".")
            swapped.append((transformer.get_submodule(parent), attribute, layer, base))
    for owner, attribute, _, base in swapped:
        setattr(owner, attribute, base)
    try:
        yield
    finally:
        for owner, attribute, layer, _ in swapped:
            setattr(owner, attribute, layer)
