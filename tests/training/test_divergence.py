"""A run whose numbers are no numbers any more stops, and loses nothing that was good."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.methods.config import MethodConfig
from diffcr.methods.diffcr.config import MoDConfig
from diffcr.methods.pruning.config import StructuredPruningConfig
from diffcr.training.losses import RunLoss, StepLosses
from diffcr.training.recipe import OptimizerRecipe
from tests.training.worker import METHOD, run, state, tiny_recipe


def _all_finite(directory: Path) -> bool:
    files = list(directory.rglob("*.safetensors"))
    assert files
    return all(bool(t.isfinite().all()) for file in files for t in load_file(file).values())


@pytest.mark.parametrize(
    "method", [METHOD, MoDConfig(0.3), StructuredPruningConfig(0.3)], ids=lambda m: m.method
)
@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_loss_that_is_not_finite_ends_the_run_at_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: MethodConfig, clip: float
) -> None:
    plain, calls = RunLoss.losses, iter(range(100))

    def losses(self: RunLoss, *arguments: Any) -> StepLosses:
        found = plain(self, *arguments)
        factor = float("nan") if next(calls) == 7 else 1.0
        return StepLosses(found.total * factor, found.diffusion * factor, found.distillation)

    monkeypatch.setattr(RunLoss, "losses", losses)
    optimizer = OptimizerRecipe(learning_rate=1e-2, gradient_clip=clip)
    recipe = tiny_recipe(method=method, finetune="full", optimizer=optimizer)
    with pytest.raises(DiffCRError, match=r"diverged at step 8: the loss is nan.*learning_rate"):
        run(tmp_path, recipe)
    steps = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert steps == ["step-0000003", "step-0000006"]
    assert _all_finite(tmp_path) and not (tmp_path / "final").exists()
    for line in (tmp_path / "history.jsonl").read_text().splitlines():
        assert "NaN" not in line and json.loads(line)["step"] < 8


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: float
) -> None:
    plain = RunLoss.losses

    def losses(self: RunLoss, *arguments: Any) -> StepLosses:
        found = plain(self, *arguments)
        found.total.register_hook(lambda gradient: gradient * float("inf"))
        return found

    monkeypatch.setattr(RunLoss, "losses", losses)
    with pytest.raises(DiffCRError, match=r"diverged at step 1: the loss is \d.*norm (nan|inf)"):
        run(tmp_path, tiny_recipe(optimizer=OptimizerRecipe(gradient_clip=clip)))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_weights_that_are_not_finite_are_never_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, steps = torch.optim.AdamW.step, iter(range(1, 100))

    def step(self: torch.optim.AdamW, *arguments: Any) -> Any:
        done = plain(self, *arguments)
        if next(steps) == 6:
            with torch.no_grad():
                self.param_groups[0]["params"][0].fill_(float("inf"))
        return done

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(DiffCRError, match="not finite"):
        run(tmp_path, tiny_recipe())
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000003"]
    assert _all_finite(tmp_path)


def test_a_run_does_not_go_on_from_weights_that_are_not_finite(tmp_path: Path) -> None:
    run(tmp_path, tiny_recipe(steps=6))
    tensors = state(tmp_path, 6)
    name = next(name for name in tensors if name.startswith("parameter/"))
    tensors[name].view(-1)[0] = float("nan")
    save_file(tensors, tmp_path / "checkpoints/step-0000006/state.safetensors")
    with pytest.warns(DiffCRWarning, match=r"step-0000006 is passed over.*not finite"):
        run(tmp_path, tiny_recipe())
    assert _all_finite(tmp_path)
