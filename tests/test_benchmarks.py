"""Every row of the comparison is a configuration that the library accepts, and its records are its
own; runs side by side meet, and what fails is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import rows
from experiments import in_waves, run_side_by_side, say_what_failed
from rows import MAPPED, RECORDS, SETTINGS, SHEETS, TRAINED, UNTRAINED, Run

from diffcr.binding.model import get_attached, get_compressor
from diffcr.errors import DiffCRError
from diffcr.methods.registry import config_from_json_dict
from diffcr.methods.reuse.config import ReuseConfig
from diffcr.methods.step_caches.config import StepCacheConfig
from diffcr.records.record import read_record


def _names(directory: Path) -> list[str]:
    return sorted(path.stem for path in directory.glob("*.json"))


@pytest.mark.parametrize("name", _names(TRAINED))
def test_a_trained_row_is_the_shipped_recipe_but_for_what_it_says(name: str) -> None:
    recipe, shipped = (Run(row, seed=1).recipe for row in (name, "diffcr-lt-30"))
    changes = json.loads((TRAINED / f"{name}.json").read_text())
    ours, theirs = recipe.to_json_dict(), shipped.to_json_dict()
    differing = {key for key in ours if ours[key] != theirs[key]} - {"name"}
    assert differing <= set(changes)
    assert ("lora" in name) == (recipe.finetune == "lora")


def test_a_row_comes_after_the_one_that_it_goes_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "RUNS", tmp_path / "runs" / "experiments")
    monkeypatch.setattr(rows, "ROOT", tmp_path)
    start, finished, other = (
        Run("diffcr-lt-50-gradual", 7),
        Run("diffcr-lt-20-finished", 7),
        Run("mod-20", 7),
    )
    assert in_waves([finished, other, start]) == [[other, start], [finished]]
    assert in_waves([finished, other]) == [[start, other], [finished]]
    start.directory.mkdir(parents=True)
    assert in_waves([finished, other]) == [[other], [finished]]
    left, run, alone = Run("diffcr-lt-50-at-10"), Run("diffcr-lt-50"), Run("tome-30")
    assert in_waves([left, alone]) == [[run, alone], [left]]


@pytest.mark.parametrize("name", _names(UNTRAINED))
def test_an_untrained_row_is_measured_like_the_others(name: str) -> None:
    run = Run(name)
    configuration = run.configuration
    if "checkpoint" in configuration:
        assert run.start is not None and run.start.is_trained
    else:
        assert run.start is None
        assert len({"method", "calibration", "embedded"} & configuration.keys()) == 1
    if "method" in configuration:
        config_from_json_dict(configuration["method"])
    if "cache" in configuration:
        assert isinstance(config_from_json_dict(configuration["cache"]), StepCacheConfig)
    differing = {key for key in SETTINGS if configuration[key] != SETTINGS[key]}
    assert differing <= {"num_inference_steps", "images"}


def test_a_calibrated_row_opens_with_the_settings_found_and_its_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {
        "calibration": {
            "target_compression_ratio": 0.5,
            "granularity": "steps",
            "validation_captions": 1,
        },
        "num_inference_steps": 4,
    }
    (tmp_path / "fitted.json").write_text(json.dumps(asked))
    (tmp_path / "dialled.json").write_text(json.dumps({**asked, "budget": 0.75}))
    monkeypatch.setattr(rows, "UNTRAINED", tmp_path)
    fitted, dialled = (get_attached(Run(row).open()).config for row in ("fitted", "dialled"))
    assert isinstance(fitted, ReuseConfig) and isinstance(dialled, ReuseConfig)
    assert dialled.dense_above == fitted.dense_above
    assert dialled.compression_ratio * fitted.dense_above == pytest.approx(0.25)


def test_a_row_gives_skipped_tokens_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linear = {"bypass": "linear", "bypass_rank": 4, "validation_captions": 1}
    method = {"method": "mod", "compression_ratio": 0.3}
    fitted = {"method": method, "bypass": linear, "num_inference_steps": 2}
    (tmp_path / "fitted.json").write_text(json.dumps(fitted))
    embedded = {"embedded": True, "bypass": {"bypass": "reuse", "max_age": 2}}
    (tmp_path / "embedded.json").write_text(json.dumps(embedded))
    monkeypatch.setattr(rows, "UNTRAINED", tmp_path)
    compressor = get_compressor(Run("fitted").open())
    assert compressor.linear_bypass is not None
    assert all((up != 0).any() for up in compressor.linear_bypass.up.values())
    config = get_compressor(Run("embedded").open()).config
    assert (config.bypass, config.max_age) == ("reuse", 2)


def test_image_seeds_share_no_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "row.json").write_text(json.dumps({"image_seeds": 2}))
    monkeypatch.setattr(rows, "UNTRAINED", tmp_path)
    first, second, third = (Run("row", seed) for seed in range(3))
    assert first.is_made and second.is_made and not third.is_made
    assert second.first_image_seed - first.first_image_seed >= first.configuration["images"]
    assert first.configuration == second.configuration


def test_distilled_rows_share_a_training_for_all_budgets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, budget, steps in (("first", 0.2, 1), ("second", 0.5, 1), ("longer", 0.2, 2)):
        settings = {"calibration": {}, "distillation": {"steps": steps}, "budget": budget}
        (tmp_path / f"{name}.json").write_text(json.dumps(settings))
    monkeypatch.setattr(rows, "DISTILLED", tmp_path)
    monkeypatch.setattr(rows, "RUNS", tmp_path)
    first, second, longer = (Run(name) for name in ("first", "second", "longer"))
    assert first.directory == second.directory != longer.directory
    assert first.directory != Run("first", 1).directory
    assert Run("first", 2).is_made and first.first_image_seed == 0
    with pytest.raises(DiffCRError, match="is missing: train it"):
        first.open()


def test_records_come_from_a_commit() -> None:
    for path in sorted(RECORDS.glob("*.json")):
        record = read_record(path)
        assert record.commit is not None and not record.dirty, path


def test_records_hold_what_is_shown() -> None:
    assert sorted(RECORDS.glob("*.png")) == sorted(run.record.with_suffix(".png") for run in SHEETS)
    for path in sorted(RECORDS.glob("*.json")):
        record = read_record(path)
        assert ("router_maps" in record.results) == (path == MAPPED.record), path
        assert not record.samples, path


def test_committed_rows_are_current() -> None:
    for path in sorted(RECORDS.glob("*.json")):
        name, _, seed = path.stem.rpartition("-seed-")
        run = Run(name, int(seed))
        assert run.record == path and run.is_current(), path
    assert not Run("dense", seed=99).is_current()


_MEETS = """
import pathlib, sys, time
own, other = map(pathlib.Path, sys.argv[1:])
own.touch()
for _ in range(600):
    if other.exists():
        sys.exit()
    time.sleep(0.1)
sys.exit("the other one never came")
"""
_NEEDS_TO_BE_ALONE = """
import pathlib, sys, time
place = pathlib.Path(sys.argv[1])
place.mkdir()
time.sleep(0.2)
place.rmdir()
"""


def test_commands_run_at_a_time_and_leave_their_output(tmp_path: Path) -> None:
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    commands = {
        "first": ["-c", _MEETS, first, second],
        "second": ["-c", _MEETS, second, first],
        "third": ["-c", "print('out'); raise SystemExit('went wrong')"],
    }
    failed = run_side_by_side(commands, 2, tmp_path / "logs")
    assert failed == {"third": tmp_path / "logs" / "third.log"}
    assert {*failed["third"].read_text().split("\n")} >= {"out", "went wrong"}
    with pytest.raises(SystemExit, match="failed: third"):
        say_what_failed(failed)
    say_what_failed({})


def test_one_job_is_one_at_a_time(tmp_path: Path) -> None:
    place = str(tmp_path / "place")
    commands = {name: ["-c", _NEEDS_TO_BE_ALONE, place] for name in ("a", "b", "c")}
    assert run_side_by_side(commands, 1, tmp_path / "logs") == {}
