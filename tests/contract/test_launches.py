"""What routing adds to a layer in operations: on a GPU, at batch 1, each costs a launch."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from diffcr.binding.attachment import attach
from diffcr.methods.diffcr.config import MoDConfig
from tests.hosts import denoise, inputs, pixart, scramble_routers

_VIEWS = {
    "alias",
    "detach",
    "expand",
    "permute",
    "reshape",
    "select",
    "slice",
    "t",
    "transpose",
    "unsqueeze",
    "_unsafe_view",
    "view",
}


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.operations += function.overloadpacket.__name__ not in _VIEWS
        return function(*args, **(kwargs or {}))


def _operations_per_layer(routed: bool) -> float:
    counts = []
    for layers in (3, 5):
        transformer = pixart(layers=layers).bfloat16()
        if routed:
            scramble_routers(attach(transformer, MoDConfig(compression_ratio=0.3)))
        with torch.no_grad(), _Counter() as counter:
            denoise(transformer, inputs(1).to(torch.bfloat16))
        counts.append(counter.operations)
    return (counts[1] - counts[0]) / 2


def test_a_routed_layer_adds_few_operations() -> None:
    added = _operations_per_layer(routed=True) - _operations_per_layer(routed=False)
    assert 0 < added <= 17
