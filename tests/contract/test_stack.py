"""Routing on top of structured pruning."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import diffcr
from diffcr.binding.attachment import attach, detach
from diffcr.binding.model import disabled
from diffcr.checkpoint.loading import load
from diffcr.checkpoint.saving import save
from diffcr.errors import DiffCRError
from diffcr.methods.diffcr.config import DiffCRConfig, MoDConfig
from diffcr.methods.pruning.config import StructuredPruningConfig
from diffcr.methods.tome.config import ToMeConfig
from tests.hosts import denoise, inputs, pixart, scramble

_PRUNING = StructuredPruningConfig(0.3)


def _stacked() -> nn.Module:
    transformer = pixart()
    attach(transformer, _PRUNING)
    scramble(attach(transformer, DiffCRConfig()))
    return transformer


def _output(transformer: nn.Module) -> Tensor:
    with torch.no_grad():
        return denoise(transformer, inputs())


def test_freshly_attached_on_top_changes_no_bit_and_everything_comes_off() -> None:
    transformer = pixart()
    bare = _output(transformer)
    attach(transformer, _PRUNING)
    pruned = _output(transformer)
    attach(transformer, DiffCRConfig())
    assert torch.equal(_output(transformer), pruned)
    with disabled(transformer):
        assert torch.equal(_output(transformer), bare)
    assert torch.equal(_output(transformer), pruned)
    detach(transformer)
    assert torch.equal(_output(transformer), bare)


def test_both_are_saved_loaded_copied_and_described(tmp_path: Path) -> None:
    transformer = _stacked()
    expected = _output(transformer)
    assert torch.equal(_output(deepcopy(transformer)), expected)
    save(transformer, tmp_path / "both")
    other = pixart()
    load(other, tmp_path / "both")
    assert torch.equal(_output(other), expected)
    load(other, tmp_path / "both")
    assert torch.equal(_output(other), expected)
    lines = diffcr.summary(other)
    assert "compression per layer" in lines and "heads are kept" in lines


def test_a_half_precision_move_takes_both_along() -> None:
    transformer = _stacked().to(torch.bfloat16)
    assert transformer.diffcr.ratios.dtype == torch.float32
    given = inputs().to(torch.bfloat16)
    with torch.no_grad():
        assert denoise(transformer, given).dtype == torch.bfloat16
        with disabled(transformer):
            assert denoise(transformer, given).dtype == torch.bfloat16


@pytest.mark.parametrize("second", [ToMeConfig(0.2), MoDConfig(0.2), _PRUNING])
def test_two_methods_that_bind_blocks_are_refused(second: object) -> None:
    transformer = _stacked()
    with pytest.raises(DiffCRError, match="another configuration is attached"):
        attach(transformer, second)  # type: ignore[call-overload]
