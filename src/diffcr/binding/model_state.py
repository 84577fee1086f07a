"""Whether a model is still the one whose weights and adapters a recorded forward reads."""

from __future__ import annotations

from copy import copy
from itertools import chain
from typing import Any

from torch import Tensor, nn

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
        # What stands behind names, tensors and modules; held, so that an id stays one object's.
        self._named: list[dict[Any, Any]] = [m._modules for m in modules]
        self._named += [held for m in modules for held in (m._parameters, m._buffers) if held]
        # A replay calls no hook, and diffusers' attentions run what they name their processor.
        self._named += [of for m in modules for of in (m._forward_hooks, m._forward_pre_hooks)]
        self._processors = [vars(m) for m in modules if "processor" in vars(m)]
        self._objects = self._present()
        self._ids = list(map(id, self._objects))
        self._tensors = [held for held in self._objects if isinstance(held, Tensor)]
        self._places = self._present_places()
        self.devices = {tensor.device.type for tensor in self._tensors}
        layers = [vars(m) for m in modules if hasattr(m, "merged_adapters")]
        # Copies: peft changes its lists and dicts in place.
        self._adapters = [(of, name, copy(of.get(name))) for of in layers for name in _ADAPTERS]

    def holds(self) -> bool:
        """Whether nothing was moved, replaced or switched since."""
        return (
            self._ids == list(map(id, self._present()))
            and self._places == self._present_places()
            and all(of.get(name) == known for of, name, known in self._adapters)
        )

    def _present(self) -> list[Any]:
        named = chain.from_iterable(map(dict.values, self._named))
        return [*named, *(of["processor"] for of in self._processors)]

    def _present_places(self) -> list[Any]:
        return [*map(Tensor.data_ptr, self._tensors), *map(Tensor.stride, self._tensors)]
