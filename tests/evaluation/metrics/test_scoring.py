"""A directory of images to a record, in Python and on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from diffcr.cli import main
from diffcr.errors import DiffCRError
from diffcr.evaluation.metrics.images import generated_images
from diffcr.evaluation.metrics.options import ScoreOptions
from diffcr.evaluation.metrics.scoring import score_images
from diffcr.records.record import read_record
from diffcr.report.sections import make_tables
from tests.evaluation.metrics.models import (
    write_clip,
    write_dinov2,
    write_inception,
    write_pictures,
)

PROMPTS = ["a cat", "two dogs", "a boat", "the sea", "a tree", "a very long prompt"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, JPEG references, prompts and weights of every kind."""
    directory = tmp_path_factory.mktemp("scoring")
    write_pictures(directory / "images", 6)
    write_pictures(directory / "reference", 8, seed=50, suffix=".jpg")
    write_clip(directory / "clip")
    write_clip(directory / "hps")
    write_dinov2(directory / "dinov2")
    write_inception(directory / "inception.pt")
    (directory / "prompts.txt").write_text("\n".join(PROMPTS))
    return directory


def _options(place: Path, *metrics: str, **changes: object) -> ScoreOptions:
    values = {
        "inception": place / "inception.pt",
        **{name: str(place / name) for name in ("clip", "dinov2", "hps")},
        "cmmd": str(place / "clip"),
        "hps_version": "v2.1",
        "kid_subsets": 3,
        "kid_subset_size": 5,
    }
    return ScoreOptions(metrics=metrics, **{**values, **changes})  # type: ignore[arg-type]


def test_every_metric_is_in_the_record_with_what_it_depends_on(place: Path) -> None:
    every = ("clip", "cmmd", "fd-dinov2", "fid", "hps", "kid")
    arguments = (place / "images", _options(place, *every), place / "reference", PROMPTS)
    record = score_images(*arguments)
    scores = record.results["scores"]
    assert tuple(sorted(scores)) == every
    assert all({"value", "model", "resizer"} <= set(section) for section in scores.values())
    assert scores["fid"]["value"] > 0 and scores["cmmd"]["value"] > 0
    assert scores["kid"]["subset_size"] == 5 and scores["kid"]["subsets"] == 3
    assert record.samples["kid"] == pytest.approx(record.samples["kid"][:3])
    assert scores["clip"]["value"] == pytest.approx(sum(record.samples["clip"]) / 6)
    assert scores["clip"]["times_100"] == max(100 * scores["clip"]["value"], 0)
    assert scores["hps"]["version"] == "v2.1"
    assert record.results["sets"]["images"] == {
        "directory": "images",
        "pictures": 6,
        "sha256": generated_images(place / "images").sha256(),
    }
    assert record.results["sets"]["reference"]["pictures"] == 8
    assert sum("the covariances are singular" in note for note in record.results["notes"]) == 2
    assert sum("beginning of 1 prompts" in note for note in record.results["notes"]) == 2
    assert str(place) not in json.dumps(record.configuration)
    assert [row[0] for row in make_tables(record)[0].rows] == list(scores)
    # A record says the same of one picture at a time, but for rounding.
    single = score_images(arguments[0], _options(place, *every, batch_size=1), *arguments[2:])
    for name, section in single.results["scores"].items():
        assert section["value"] == pytest.approx(scores[name]["value"], rel=1e-4, abs=1e-6)


def test_what_was_not_asked_for_is_absent(place: Path) -> None:
    record = score_images(place / "images", _options(place, "clip"), prompts=PROMPTS)
    assert set(record.results["scores"]) == {"clip"}
    assert set(record.results["sets"]) == {"images"}


def test_a_set_is_at_no_distance_from_itself(place: Path) -> None:
    options = _options(place, "fid", "fd-dinov2", "cmmd")
    record = score_images(place / "images", options, place / "images")
    for section in record.results["scores"].values():
        assert section["value"] == pytest.approx(0, abs=1e-6)


def test_what_is_missing_is_said_before_any_work(place: Path, tmp_path: Path) -> None:
    images = place / "images"
    with pytest.raises(DiffCRError, match="fid needs real pictures"):
        score_images(images, _options(place, "fid"))
    with pytest.raises(DiffCRError, match="clip needs the images' prompts"):
        score_images(images, _options(place, "clip"))
    with pytest.raises(DiffCRError, match="6 images in .* and 2 prompts"):
        score_images(images, _options(place, "clip"), prompts=PROMPTS[:2])
    few = _options(place, "kid", kid_subset_size=7)
    with pytest.raises(DiffCRError, match="kid needs 7 pictures and .* holds 6.*kid_subset_size"):
        score_images(images, few, place / "reference")
    write_pictures(tmp_path / "one", 1)
    with pytest.raises(DiffCRError, match="cmmd needs 2 pictures and .* holds 1"):
        score_images(images, _options(place, "cmmd"), tmp_path / "one")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": ()}, "there is no metric: choose from fid, kid"),
        ({"metrics": ("is",)}, "metric 'is' is not known: choose from fid, kid"),
        ({"metrics": ("kid",), "inception": None}, "give inception, docs"),
        ({"metrics": ("clip",), "clip": ""}, "give clip, that"),
        ({"metrics": ("hps",), "hps_version": "v2"}, "give hps and hps_version v2.0 or v2.1"),
        ({"metrics": ("fid",), "batch_size": 0}, "batch_size is 0"),
    ],
)
def test_options_that_cannot_be_met(place: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(DiffCRError, match=message) as error:
        ScoreOptions(**{**asdict(_options(place, "fid")), **changes})  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def _call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in ("score", *arguments)])
    assert isinstance(exit_.value.code, int)
    return exit_.value.code


def test_the_command_writes_a_record_and_refuses_to_overwrite(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "results" / "scores.json"
    arguments = (place / "images", "--metric", "clip", "--clip", place / "clip")
    arguments += ("--prompts", place / "prompts.txt", "--output", output)
    assert _call(*arguments) == 0
    assert "bicubic on the shorter side" in capsys.readouterr().out
    record = read_record(output)
    assert record.kind == "scores"
    assert record.results["scores"]["clip"]["model"] == "clip"
    assert _call(*arguments) == 2
    assert "--force" in capsys.readouterr().err
    assert _call(*arguments, "--force", "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads(output.read_text())
    assert _call(*arguments[:-1], tmp_path) == 2
    assert "is a directory: give a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "there is no metric"),
        (("--metric", "bogus"), "metric 'bogus' is not known"),
        (("--metric", "fid"), "give --inception FILE, docs/metrics.md"),
        (("--metric", "clip"), "give --clip MODEL, that of the scores"),
        (("--metric", "hps"), "give --hps MODEL and --hps-version v2.0 or v2.1"),
        (("--metric", "cmmd"), "cmmd needs real pictures: give --reference DIR"),
        (
            ("--metric", "clip", "--clip", "x"),
            "needs the images' prompts: give --prompts FILE",
        ),
        (
            ("--metric", "kid", "--inception", "no.pt", "--reference", "."),
            "give more, or a smaller --kid-subset-size",
        ),
        (("--metric", "fid", "--inception", "no.pt", "--reference", "."), "save https://nvlabs"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    place: Path,
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place / "reference")
    assert _call(place / "images", *arguments) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and message in errors[0]


def test_a_hub_id_is_found_in_the_local_cache(place: Path, tmp_path: Path) -> None:
    stored = tmp_path / "hub" / "models--facebook--dinov2-large"
    write_dinov2(stored / "snapshots" / ("0" * 40))
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("0" * 40)
    command = [sys.executable, "-m", "diffcr", "score", place / "images", "--json"]
    command += ["--metric", "fd-dinov2", "--reference", place / "reference"]
    finished = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
    )
    assert finished.returncode == 0, finished.stderr
    section = json.loads(finished.stdout)["results"]["scores"]["fd-dinov2"]
    assert section["model"] == "facebook/dinov2-large"
