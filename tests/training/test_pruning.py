"""A pruned model is trained as the dense one is."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import diffcr
from diffcr.binding.compilation import compile
from diffcr.binding.model import get_attached
from diffcr.methods.pruning.config import StructuredPruningConfig
from diffcr.training.recipe import OptimizerRecipe, TrainingRecipe
from diffcr.training.run_directory import read_history
from tests.hosts import denoise, inputs, pixart
from tests.training.worker import equal, run, state, tiny_pipe, tiny_recipe

_METHOD = StructuredPruningConfig(0.3)
_MUON = OptimizerRecipe(algorithm="muon", learning_rate=1e-2)


def _recipe(**changes: Any) -> TrainingRecipe:
    return tiny_recipe(_METHOD, **{"steps": 4, "checkpoint_every": 2, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"finetune": "full", "distillation_weight": 1.0},
        {"finetune": "full", "optimizer": _MUON},
        {"finetune": "lora", "distillation_weight": 1.0},
        {"finetune": "lora", "gradient_checkpointing": True},
    ],
    ids=["full-distilled", "full-muon", "lora-distilled", "lora-checkpointing"],
)
def test_a_run_trains_and_its_result_loads(changes: dict[str, Any], tmp_path: Path) -> None:
    pipe = tiny_pipe()
    result = run(tmp_path / "run", _recipe(**changes), pipe)
    assert result.mean_compression_ratio is None
    history = read_history(tmp_path / "run" / "history.jsonl")
    assert len(history) == 4 and {line["region"] for line in history} == {0}
    assert "ratio" not in history[0]
    final = tmp_path / "run" / "final"
    assert (final / "transformer.safetensors").exists() == (changes["finetune"] == "full")
    assert (final / "adapter").exists() == (changes["finetune"] == "lora")
    loaded = pixart(layers=2)
    assert diffcr.load(loaded, final).config == _METHOD
    assert torch.equal(denoise(loaded, inputs()), denoise(pipe.transformer, inputs()))
    untrained = pixart(layers=2)
    diffcr.attach(untrained, _METHOD)
    assert not torch.equal(denoise(loaded, inputs()), denoise(untrained, inputs()))
    with diffcr.disabled(pipe):
        bare = denoise(pixart(layers=2), inputs())
        assert torch.equal(denoise(pipe.transformer, inputs()), bare)


@pytest.mark.parametrize("finetune", ["full", "lora"])
def test_a_resumed_run_ends_where_an_unbroken_one_does(finetune: str, tmp_path: Path) -> None:
    run(tmp_path / "whole", _recipe(finetune=finetune))
    run(tmp_path / "broken", _recipe(finetune=finetune, steps=2))
    pipe = tiny_pipe()
    run(tmp_path / "broken", _recipe(finetune=finetune), pipe)
    assert equal(state(tmp_path / "whole", 4), state(tmp_path / "broken", 4))
    changed = get_attached(pipe).base.have_changed(pipe.transformer)
    assert changed == (finetune == "full")


def test_a_compiled_run_gives_what_a_plain_one_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffcr.training.run.compile", partial(compile, backend="aot_eager"))
    losses = []
    for compiled in (False, True):
        pipe, directory = tiny_pipe(), tmp_path / str(compiled)
        run(directory, _recipe(finetune="lora", distillation_weight=1.0, compile=compiled), pipe)
        losses.append([line["loss"] for line in read_history(directory / "history.jsonl")])
        assert all(module._compiled_call_impl is None for module in pipe.transformer.modules())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
