"""One fixed ratio: routers learn, ratios do not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import diffcr
from diffcr.binding.attachment import attach, detach
from diffcr.binding.model import parameter_groups
from diffcr.methods.diffcr.config import DiffCRConfig, MoDConfig
from diffcr.training.recipe import OptimizerRecipe, TrainingRecipe
from diffcr.training.run import make_trainable
from tests.hosts import denoise, inputs, pixart, scramble_routers

_CONFIG = MoDConfig(compression_ratio=0.3)


def _attached(config: MoDConfig = _CONFIG) -> torch.nn.Module:
    transformer = pixart()
    scramble_routers(attach(transformer, config))
    return transformer


def test_a_ratio_of_zero_changes_nothing() -> None:
    transformer = pixart()
    bare = denoise(transformer, inputs())
    attach(transformer, MoDConfig(compression_ratio=0.0))
    with pytest.warns(diffcr.errors.DiffCRWarning, match="every compression ratio is 0"):
        assert torch.equal(denoise(transformer, inputs()), bare)


@pytest.mark.parametrize("timestep", [10, 900])
def test_every_layer_and_timestep_equals_diffcr_at_that_table(timestep: int) -> None:
    uniform, learned = _attached(), pixart()
    compressor = attach(learned, DiffCRConfig())
    scramble_routers(compressor)
    compressor.set_compression_ratios(0.3)
    given = inputs(timestep=timestep)
    assert torch.equal(denoise(uniform, given), denoise(learned, given))
    assert uniform.diffcr.kept_tokens(16) == [[12]] * 3


def test_training_keeps_what_inference_keeps() -> None:
    transformer = _attached()
    expected = denoise(transformer, inputs())
    assert torch.equal(denoise(transformer.train(), inputs()), expected)


@pytest.mark.parametrize("finetune", ["full", "lora", "none"])
def test_routers_get_a_gradient_and_ratios_stay(finetune: str) -> None:
    transformer = pixart()
    recipe = TrainingRecipe("mod", method=_CONFIG, finetune=finetune)  # type: ignore[arg-type]
    compressor = make_trainable(transformer, recipe)
    assert compressor is not None
    denoise(transformer.train(), inputs()).square().mean().backward()
    assert all((router.grad != 0).any() for router in compressor.routers.values())
    assert float(compressor.ratio_loss(3.0)) < 1e-12
    assert not compressor.ratios.requires_grad
    rates = OptimizerRecipe()
    groups = parameter_groups(transformer, rates.learning_rate, rates.router_learning_rate)
    assert all(compressor.ratios is not p for group in groups for p in group["params"])


def test_half_precision_keeps_the_ratio_and_detach_restores(tmp_path: Path) -> None:
    bare = denoise(pixart(), inputs())
    transformer = _attached().to(torch.bfloat16)
    assert transformer.diffcr.ratios.dtype == torch.float32
    transformer = _attached()
    detach(transformer)
    assert torch.equal(denoise(transformer, inputs()), bare)


def test_save_and_load(tmp_path: Path) -> None:
    transformer = _attached()
    diffcr.save(transformer, tmp_path / "mod")
    loaded = pixart()
    compressor = diffcr.load(loaded, tmp_path / "mod")
    assert compressor.config == _CONFIG
    assert torch.equal(denoise(loaded, inputs()), denoise(transformer, inputs()))
