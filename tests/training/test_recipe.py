"""Recipes: every key, type and range is checked."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
        ("name: x\nsteps: 2\nsteps: 3", "the key 'steps' is there twice"),
        ("name: x\ndata: {size: 2, size: 3}", "the key 'size' is there twice"),
        ("name: x\nmethod: &m {method: mod}\ndata: *m", "aliases"),
        ("name: x\nsteps: " + "1" * 30, "up to 10^9"),
        ("name: x\nsteps: " + "1" * 5000, "not valid YAML"),
        ("name: x\noptimizer: {learning_rate: " + "1" * 400 + "}", "learning_rate"),
        (
            "name: x\noptimizer: {learning_rate: 1.0e+300}",
            "learning_rate is 1e+300: give 0 or more",
        ),
        ("name: x\nlargest_loss_weight: .inf", "largest_loss_weight is inf"),
        ("name: x\nratio_loss: {growth: .nan}", "ratio_loss.growth is nan"),
        ("name: x\nratio_loss: {weight: 1.0e+300}", "ratio_loss.weight is 1e+300"),
        ("name: x\ndistillation_weight: 1.0e+300", "distillation_weight is 1e+300"),
        ("name: x\nmethod: {method: diffcr, timestep_regions: 1001}", "from 1 to 1000"),
        ("name: x\nbatch_size: 10000000", "batch_size is 10000000: give 1 to 65536"),
        ("name: x\nlora_rank: 100000", "lora_rank is 100000: give 1 to 4096"),
        ("name: x\ndata: {resolution: 100000}", "data.resolution is 100000"),
        (
            "name: x\ndata: {max_sequence_length: 100000000}",
            "data.max_sequence_length is 100000000",
        ),
        ("name: x\ndata: {size: 10000000000}", "data.size is 10000000000"),
        ("name: x\ntracker: " + "y" * 4000, "tracker is 'yyy"),
        ("name: " + "[" * 1000, "not valid YAML"),
        ("name: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("name: " + "{a: " * 3000 + "b" + "}" * 3000, "nested too deeply"),
        ("name: ../outside", "give a name for a directory"),
        ("name: ' '", "give a name for a directory"),
        ("name: " + "n" * 200, "give a name for a directory"),
        ('name: "\\ud800"', "surrogates not allowed"),
        ("name: x\nsteps: !!int ''", "not valid YAML"),
        ("name: x\ncompile: !!bool perhaps", "not valid YAML"),
        ("name: x\nsteps: 2001-13-45", "not valid YAML"),
        ("name: x\nsteps: 2001-01-01", "steps is datetime.date"),
        ("name: !!python/object/apply:os.system ['x']", "not valid YAML"),
        ("? [1]\n: 2", "not valid YAML"),
        ("1: 2", "unknown key '1'"),
        ("name: x\nzzz: 1", "unknown key 'zzz': known are name, method"),
        ("name: x\nmethod: {method: mod, zzz: 1}", "unknown key 'zzz': known are"),
        (
            "name: x\nfinetune: full\nmixed_precision: fp16\noptimizer: {algorithm: muon}",
            "two optimizers cannot share: give 'bf16'",
        ),
        ("\x00", "not valid YAML"),
        ("", "give keys and values"),
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
    assert len(str(caught.value)) <= 400


@pytest.mark.parametrize(
    "text", ['{"name": "x", "steps": 2, "steps": 3}', '{"name": "x", "steps": NaN}', "[" * 9999]
)
def test_a_json_recipe_is_held_to_its_standard(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(text)
    with pytest.raises(DiffCRError, match="not valid YAML or JSON") as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=4,
)


@settings(max_examples=200, deadline=None)
@given(
    changes=st.dictionaries(
        st.sampled_from([field.name for field in fields(TrainingRecipe)]) | st.text(max_size=9),
        _VALUES
        | st.dictionaries(
            st.sampled_from(["method", "size", "algorithm", "weight", "part", "resolution"]),
            _VALUES,
        ),
        max_size=4,
    )
)
def test_whatever_a_recipe_holds_it_is_read_or_refused_in_one_line(changes: Any) -> None:
    try:
        recipe_from_dict({"name": "x", **changes}, "somewhere")
    except DiffCRError as error:
        text = str(error)
    else:
        text = "somewhere"
    assert "somewhere" in text and "\n" not in text and len(text) <= 400


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
