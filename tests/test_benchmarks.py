"""Every row of the comparison is a configuration that the library accepts."""

from __future__ import annotations

import json
from pathlib import Path

import experiments
import pytest
from experiments import EXPERIMENTS, experiment_recipe, in_waves, is_current
from measuring import RECORDS, SETTINGS
from untrained import ROWS, row_configuration

from diffcr.methods.registry import config_from_json_dict
from diffcr.records.record import read_record


@pytest.mark.parametrize("name", sorted(path.stem for path in EXPERIMENTS.glob("*.json")))
def test_a_trained_row_is_the_shipped_recipe_but_for_what_it_says(name: str) -> None:
    recipe = experiment_recipe(name, seed=1)
    shipped = experiment_recipe("diffcr-lt-30", seed=1)
    changes = json.loads((EXPERIMENTS / f"{name}.json").read_text())
    ours, theirs = recipe.to_json_dict(), shipped.to_json_dict()
    differing = {key for key in ours if ours[key] != theirs[key]} - {"name"}
    assert differing <= set(changes)
    assert ("lora" in name) == (recipe.finetune == "lora")


def test_a_row_comes_after_the_one_that_it_goes_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiments, "RUNS", tmp_path / "runs" / "experiments")
    monkeypatch.setattr(experiments, "ROOT", tmp_path)
    start, finished, other = (
        ("diffcr-lt-50-gradual", 7),
        ("diffcr-lt-20-finished", 7),
        ("mod-20", 7),
    )
    assert in_waves([finished, other, start]) == [[other, start], [finished]]
    assert in_waves([finished, other]) == [[start, other], [finished]]
    (tmp_path / "runs" / "experiments" / "diffcr-lt-50-gradual-seed-7").mkdir(parents=True)
    assert in_waves([finished, other]) == [[other], [finished]]


@pytest.mark.parametrize("name", sorted(path.stem for path in ROWS.glob("*.json")))
def test_an_untrained_row_is_measured_like_the_others(name: str) -> None:
    configuration = row_configuration(name)
    if "method" in configuration:
        config_from_json_dict(configuration["method"])
    else:
        trained = configuration["checkpoint"].partition("-seed-")[0]
        assert (EXPERIMENTS / f"{trained}.json").exists()
    differing = {key for key in SETTINGS if configuration[key] != SETTINGS[key]}
    assert differing <= {"num_inference_steps"}


def test_records_come_from_a_commit() -> None:
    for path in sorted(RECORDS.glob("*.json")):
        record = read_record(path)
        assert record.commit is not None and not record.dirty, path
        assert path.with_suffix(".png").exists()


def test_committed_rows_are_current() -> None:
    for path in sorted(RECORDS.glob("*.json")):
        name, _, seed = path.stem.partition("-seed-")
        if (EXPERIMENTS / f"{name}.json").exists():
            assert is_current(experiment_recipe(name, int(seed))), path
    assert not is_current(experiment_recipe("dense", seed=99))
