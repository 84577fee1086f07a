"""Whether a model is still the one whose weights and adapters a recorded forward reads."""

from __future__ import annotations

from typing import Any

from torch import nn

# What peft's layers decide by, beside their weights.
_ADAPTERS = ("_active_adapter", "_disable_adapters", "merged_adapters", "scaling")


class ModelState:
    """A model's modules, where its tensors lie, and which adapters act.

    Values may change in place: an operation reads them when it runs. Asked at every call, so it
    compares what it knows and does not walk the model anew.

    Attributes:
        devices: Types of those that its tensors are on.
    """

    def __init__(self, model: nn.Module) -> None:
        modules = list(model.modules())
        self._children = [(m._modules, tuple(m._modules.values())) for m in modules]
        self._tensors = [
            (held, tuple((name, t, t.data_ptr()) for name, t in held.items() if t is not None))
            for m in modules
            for held in (m._parameters, m._buffers)
            if held
        ]
        self.devices = {t.device.type for _, known in self._tensors for _, t, _ in known}
        layers = [m for m in modules if hasattr(m, "merged_adapters")]
        self._adapters = [(layer, _acting(layer)) for layer in layers]

    def holds(self) -> bool:
        """Whether nothing was moved, replaced or switched since."""
        return (
            all(_same(children.values(), known) for children, known in self._children)
            and all(_unmoved(held, known) for held, known in self._tensors)
            and all(_acting(layer) == known for layer, known in self._adapters)
        )


def _same(children: Any, known: tuple[Any, ...]) -> bool:
    return len(children) == len(known) and all(a is b for a, b in zip(children, known, strict=True))


def _unmoved(held: dict[str, Any], known: tuple[tuple[str, Any, int], ...]) -> bool:
    return all(
        (present := held.get(name)) is tensor and present.data_ptr() == place
        for name, tensor, place in known
    ) and sum(tensor is not None for tensor in held.values()) == len(known)


def _acting(layer: Any) -> tuple[Any, ...]:
    return tuple(repr(vars(layer).get(name)) for name in _ADAPTERS)
