"""Runs that go on from a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import diffcr
from diffcr.binding.model import get_compressor
from diffcr.errors import DiffCRError
from diffcr.methods.config import DenseConfig
from diffcr.methods.diffcr.compressor import Compressor
from diffcr.methods.diffcr.config import MoDConfig
from diffcr.training.recipe import RatioLossRecipe, TrainingRecipe
from diffcr.training.run import make_teacher
from diffcr.training.run_directory import read_history
from tests.hosts import denoise, inputs, pixart
from tests.training.worker import (
    METHOD,
    STILL,
    equal,
    run,
    state,
    tiny_pipe,
    tiny_recipe,
    tiny_task,
)


def _left_on_the_way(directory: Path, **changes: Any) -> Path:
    run(directory, tiny_recipe(**changes))
    return sorted((directory / "by-products").iterdir())[1]


def _output(checkpoint: Path) -> torch.Tensor:
    transformer = pixart(layers=2)
    diffcr.load(transformer, checkpoint)
    with torch.no_grad():
        return denoise(transformer, inputs())


def _compressor(checkpoint: Path) -> Compressor:
    transformer = pixart(layers=2)
    diffcr.load(transformer, checkpoint)
    return get_compressor(transformer)


@pytest.mark.parametrize("finetune", ["full", "lora", "none"])
def test_a_run_begins_with_what_the_checkpoint_holds(tmp_path: Path, finetune: Any) -> None:
    start = _left_on_the_way(tmp_path / "first", finetune=finetune)
    still = tiny_recipe(finetune=finetune, checkpoint=str(start), optimizer=STILL, steps=2)
    run(tmp_path / "still", still)
    final = tmp_path / "still" / "final"
    assert torch.equal(_output(final), _output(start))
    assert equal(*(load_file(d / "diffcr.safetensors") for d in (final, start)))


@pytest.mark.parametrize("finetune", ["full", "lora"])
def test_a_finished_checkpoint_keeps_its_ratios_and_learns(tmp_path: Path, finetune: Any) -> None:
    start = _left_on_the_way(tmp_path / "first", finetune=finetune)
    recipe = tiny_recipe(
        finetune=finetune,
        checkpoint=str(start),
        ratio_loss=RatioLossRecipe(settle=0.0),
        method=replace(METHOD, branching="both", target_compression_ratio=0.1),
    )
    run(tmp_path / "run", recipe)
    before, after = _compressor(start), _compressor(tmp_path / "run" / "final")
    assert torch.equal(after.learned_compression_ratios, before.compression_ratios)
    assert after.config == recipe.method
    assert not torch.equal(_output(tmp_path / "run" / "final"), _output(start))
    assert not (tmp_path / "run" / "by-products").exists()
    assert len({str(line["table"]) for line in read_history(tmp_path / "run/history.jsonl")}) == 1


def test_a_run_goes_on_to_a_higher_ratio_and_resumes_bit_equal(tmp_path: Path) -> None:
    start = _left_on_the_way(tmp_path / "first")
    recipe = tiny_recipe(
        checkpoint=str(start), method=replace(METHOD, target_compression_ratio=0.6)
    )
    run(tmp_path / "whole", recipe)
    history = read_history(tmp_path / "whole" / "history.jsonl")
    assert 0.1 < history[0]["ratio"] < history[-1]["ratio"]
    passed = sorted(path.name for path in (tmp_path / "whole" / "by-products").iterdir())
    assert passed[0] == "ratio-15"
    run(tmp_path / "halved", replace(recipe, steps=6))
    run(tmp_path / "halved", recipe)
    assert equal(state(tmp_path / "halved", 12), state(tmp_path / "whole", 12))


def test_a_lora_on_top_of_trained_weights_is_saved_with_them(tmp_path: Path) -> None:
    start = _left_on_the_way(tmp_path / "first", finetune="full")
    recipe = tiny_recipe(finetune="lora", checkpoint=str(start))
    pipe = tiny_pipe()
    run(tmp_path / "run", recipe, pipe)
    final = tmp_path / "run" / "final"
    assert equal(*(load_file(d / "transformer.safetensors") for d in (final, start)))
    with torch.no_grad():
        assert torch.equal(_output(final), denoise(pipe.transformer, inputs()))


def test_the_teacher_is_the_model_without_the_checkpoint(tmp_path: Path) -> None:
    start = _left_on_the_way(tmp_path / "first", finetune="full")
    task = tiny_task()
    with torch.no_grad():
        bare = denoise(task.trained, inputs())
    recipe = tiny_recipe(checkpoint=str(start), distillation_weight=1.0)
    teacher = make_teacher(task, recipe, torch.device("cpu"))
    assert teacher is not None
    diffcr.load(task.trained, start)
    given = inputs()
    output = teacher(
        {
            "hidden_states": given.latents,
            "encoder_hidden_states": given.prompt_embeds,
            "timestep": given.timesteps,
            "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
            "return_dict": False,
        }
    )
    assert torch.equal(output, bare)


@pytest.mark.parametrize(
    ("changes", "saying"),
    [
        ({"method": replace(METHOD, timestep_regions=4)}, "has timestep_regions 2.* 4: give"),
        ({"method": replace(METHOD, gate="sigmoid")}, "has gate 'identity'.* 'sigmoid': give"),
        ({"method": MoDConfig(0.3)}, "has compression_ratio None.* 0.3: give"),
        ({"lora_rank": 4}, "lora_rank is 4, that of .* 2: give that"),
        ({"finetune": "full"}, "finetune is 'full' and the model has a DiffCR LoRA"),
        ({"checkpoint": "/nowhere"}, "/nowhere is not a directory"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_a_checkpoint_is_said(
    tmp_path: Path, changes: dict[str, Any], saying: str
) -> None:
    start = _left_on_the_way(tmp_path / "first")
    recipe: TrainingRecipe = replace(tiny_recipe(checkpoint=str(start)), **changes)
    with pytest.raises(DiffCRError, match=saying):
        run(tmp_path / "run", recipe)


def test_a_checkpoint_is_for_the_bare_model(tmp_path: Path) -> None:
    start = _left_on_the_way(tmp_path / "first", finetune="none")
    pipe = tiny_pipe()
    diffcr.load(pipe, start)
    with pytest.raises(DiffCRError, match="a method is attached: detach"):
        run(tmp_path / "run", tiny_recipe(finetune="none", checkpoint=str(start)), pipe)


def test_a_checkpoint_is_asked_for_where_there_has_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(DiffCRError, match="settle is 0 without a checkpoint"):
        run(tmp_path, tiny_recipe(ratio_loss=RatioLossRecipe(settle=0.0)))
    with pytest.raises(DiffCRError, match="for the dense method, which has none"):
        tiny_recipe(DenseConfig(), finetune="full", checkpoint="somewhere")
