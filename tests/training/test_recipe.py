"""Recipes: every key, type and range is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diffcr.errors import DiffCRError
from diffcr.training.recipe import (
    DataRecipe,
    OptimizerRecipe,
    TrainingRecipe,
    load_recipe,
    recipe_from_dict,
)

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_load_and_round_trip(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe_from_dict(recipe.to_json_dict(), "itself") == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nlearning_rate: 1", "unknown key 'learning_rate'"),
        ("name: x\noptimizer: {learning_rat: 1}", "did you mean 'optimizer.learning_rate'"),
        ("name: x\nsteps: many", "steps is 'many': give int"),
        ("name: x\nsteps: 0", "steps is 0: give 1 or more"),
        ("name: x\nsteps: true", "steps is True"),
        ("name: x\nfinetune: adapter", "finetune is 'adapter'"),
        ("name: x\nbatch_size: 5\ngradient_accumulation: 2", "a multiple of"),
        ("name: x\nmethod: {method: diffcr, gates: a}", "did you mean 'gate'"),
        ("name: x\nmethod: {method: diffcr, target_compression_ratio: 2}", "target_compression"),
        ("name: x\nmethod: {method: dense}\nfinetune: none", "nothing to train"),
        ("name: x\nmethod: {method: pruning}\nfinetune: none", "nothing to train"),
        ("name: x\nmethod: {method: tome}", "which is not trained"),
        ("name: x\nmethod: {method: [1]}", "method is [1]"),
        ("name: x\noptimizer: {algorithm: muon}", "with finetune 'lora'"),
        ("name: x\nseed: -1", "seed is -1"),
        ("name: x\ndata: {size: 0}", "data.size is 0"),
        ("name: x\ndata: {resolution: 20}", "data.resolution is 20: give a multiple of 8"),
        ("name: x\ndata: {max_sequence_length: 0}", "data.max_sequence_length is 0"),
        ("name: x\noptimizer: {learning_rate: -1}", "optimizer.learning_rate is -1"),
        ("name: x\noptimizer: {learning_rate: .nan}", "optimizer.learning_rate is nan"),
        ("name: x\noptimizer: {warmup_steps: -5}", "optimizer.warmup_steps is -5"),
        ("name: x\nratio_loss: {raise_every: 0}", "ratio_loss.raise_every is 0"),
        ("name: x\nratio_loss: {ramp: 0}", "ratio_loss.ramp is 0"),
        ("name: x\nratio_loss: {growth: 0.5}", "ratio_loss.growth is 0.5"),
        ("steps: 4", "'name' is missing"),
        ("- a", "give keys and values"),
        ("name: [", "not valid YAML"),
    ],
)
def test_a_wrong_recipe_is_one_line_that_names_file_and_key(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(DiffCRError) as caught:
        load_recipe(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(DiffCRError, match="nowhere.yaml"):
        load_recipe(tmp_path / "nowhere.yaml")


def test_yaml_spellings_of_numbers_and_no(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\nmixed_precision: no\noptimizer: {learning_rate: 1e-4}")
    recipe = load_recipe(path)
    assert recipe.mixed_precision == "no"
    assert recipe.optimizer.learning_rate == 1e-4
    assert recipe.with_changes(steps=None) == recipe
    assert isinstance(recipe, TrainingRecipe)


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (TrainingRecipe, {"name": "x", "steps": 2.5}, "steps is 2.5: give int"),
        (TrainingRecipe, {"name": "x", "compile": 1}, "compile is 1: give bool"),
        (TrainingRecipe, {"name": "x", "ema_decay": 1.0}, "ema_decay is 1.0: give a value in"),
        (TrainingRecipe, {"name": "x", "data": 3}, "data is 3: give DataRecipe"),
        (DataRecipe, {"size": "all"}, "data.size is 'all': give int"),
        (OptimizerRecipe, {"learning_rate": float("inf")}, "optimizer.learning_rate is inf"),
        (OptimizerRecipe, {"schedule": "linear"}, "give 'constant' or 'cosine'"),
    ],
)
def test_a_recipe_made_in_python_is_held_to_the_same(
    section: Any, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(DiffCRError, match=message):
        section(**values)
