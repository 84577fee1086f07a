"""A step of a run reads what is on the device once."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from diffcr.methods.config import DenseConfig, MethodConfig
from diffcr.methods.diffcr.config import MoDConfig, RoutedConfig
from diffcr.methods.pruning.config import StructuredPruningConfig
from diffcr.training.loop import Trainer
from tests.training.worker import METHOD, run, tiny_recipe

_PAST_THE_DISPATCHER = ("tolist", "cpu", "numpy")


class _Device(TorchDispatchMode):
    """Plays the part of an accelerator: what is computed from the tensors that are put on it is on
    it, too, and every line of the package that reads a value of it is noted."""

    def __init__(self) -> None:
        super().__init__()
        self.held = WeakTensorKeyDictionary()
        self.waits: Counter[str] = Counter()

    def put(self, tensors: Iterable[Tensor]) -> None:
        """Have tensors on the device."""
        for tensor in tensors:
            self.held[tensor] = True

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        on_device = any(t in self.held for t in given)
        if on_device and function is torch.ops.aten._local_scalar_dense.default:
            self.note()
        output = function(*args, **(kwargs or {}))
        if on_device:
            self.put(t for t in tree_leaves(output) if isinstance(t, Tensor))
        return output

    def note(self) -> None:
        """Count the innermost line beyond torch's and this file's."""
        frame = sys._getframe(1)
        while "/torch/" in frame.f_code.co_filename or frame.f_code.co_filename == __file__:
            assert frame.f_back is not None
            frame = frame.f_back
        self.waits[f"{Path(frame.f_code.co_filename).name}: {frame.f_code.co_name}"] += 1


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> _Device:
    """Trained tensors and micro-batches are on it within a run's steps."""
    device, step = _Device(), Trainer._step

    def on_device(self: Trainer, number: int) -> dict[str, float]:
        model = self.task.model
        device.put([*model.parameters(), *model.buffers(), *self.average.values.values()])
        with monkeypatch.context() as patched, device:
            for name in _PAST_THE_DISPATCHER:
                patched.setattr(Tensor, name, _noting(device, getattr(Tensor, name)))
            return step(self, number)

    monkeypatch.setattr(Trainer, "_step", on_device)
    monkeypatch.setattr("diffcr.methods.diffcr.ratio_table._waits", lambda ratios: True)
    return device


def _noting(device: _Device, read: Callable[..., Any]) -> Callable[..., Any]:
    def noted(tensor: Tensor, *args: Any, **options: Any) -> Any:
        if tensor in device.held:
            device.note()
        return read(tensor, *args, **options)

    return noted


@pytest.mark.parametrize(
    "method",
    [DenseConfig(), METHOD, MoDConfig(0.3), StructuredPruningConfig(0.3)],
    ids=lambda method: method.method,
)
def test_a_step_waits_for_the_device_once(
    method: MethodConfig, device: _Device, tmp_path: Path
) -> None:
    recipe = tiny_recipe(method=method, gradient_accumulation=2, checkpoint_every=100)
    steps = run(tmp_path, recipe.with_changes(by_product_step=1.0)).steps
    # The first step and one after a save, which swaps the averaged weights in, read ratios, too.
    assert device.waits.pop("ratio_table.py: _noticed", 0) == isinstance(method, RoutedConfig)
    assert device.waits == {"loop.py: _agree": steps}
