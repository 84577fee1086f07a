"""One schema, written whole, read with checks."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from diffcr.errors import DiffCRError
from diffcr.records.provenance import find_revision, has_changes
from diffcr.records.record import make_record, read_record, write_record
from tests.evaluation.synthetic import synthetic_record


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    record = synthetic_record(tmp_path)
    path = write_record(record, tmp_path / "deep" / "report.json")
    assert read_record(path) == record
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]


def test_a_record_says_what_it_was_measured_with(tmp_path: Path) -> None:
    record = make_record("evaluation", {}, {}, seeds={"images": 3})
    assert {"python", "torch", "diffusers"} <= set(record.versions)
    assert record.hardware["cores"] >= 1
    assert record.created.endswith("+00:00")
    assert record.seeds == {"images": 3}


def test_maps_stay_on_a_line_each(tmp_path: Path) -> None:
    record = make_record("evaluation", {}, {"map": [[1, 2], [3, 4]]}, seeds={})
    text = write_record(record, tmp_path / "r.json").read_text()
    assert "[1, 2],\n" in text
    assert json.loads(text) == asdict(record)


def test_a_value_that_is_no_number_is_refused_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_record(make_record("evaluation", {}, {"loss": 1.0}, seeds={}), tmp_path / "r.json")
    before = path.read_text()
    with pytest.raises(ValueError, match="JSON compliant"):
        write_record(make_record("evaluation", {}, {"loss": float("nan")}, seeds={}), path)
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 99}, "schema 99"),
        ({"kind": 3}, "kind is 3"),
        ({"surprise": 1}, "surprise"),
        ({"samples": {"a": ["x"]}}, "samples 'a'"),
        ({"samples": {"a": 1.0}}, "samples 'a'"),
    ],
)
def test_what_is_no_record_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    values = {**asdict(make_record("evaluation", {}, {}, seeds={})), **changes}
    path = tmp_path / "r.json"
    path.write_text(json.dumps(values))
    with pytest.raises(DiffCRError, match=message):
        read_record(path)


def test_missing_keys_and_files_are_refused(tmp_path: Path) -> None:
    values = asdict(make_record("evaluation", {}, {}, seeds={}))
    del values["commit"]
    path = tmp_path / "r.json"
    path.write_text(json.dumps(values))
    with pytest.raises(DiffCRError, match="commit"):
        read_record(path)
    path.write_text('{"schema": 1')
    with pytest.raises(DiffCRError, match="damaged"):
        read_record(path)
    with pytest.raises(DiffCRError, match="cannot be read"):
        read_record(tmp_path / "none.json")


def test_a_revision_is_a_commit_or_nothing() -> None:
    revision = find_revision()
    assert (revision.commit is None) == (revision.dirty is None)
    assert revision.commit is None or len(revision.commit) == 40


def test_a_record_that_was_written_is_no_change_of_the_source(tmp_path: Path) -> None:
    source, record = tmp_path / "src" / "a.py", tmp_path / "benchmarks" / "results" / "a.json"
    for file in (source, record):
        file.parent.mkdir(parents=True)
        file.write_text("1")
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.com", "-C", str(tmp_path))
    for command in (("init", "-q"), ("add", "."), ("commit", "-qm", "first")):
        subprocess.run([*git, *command], check=True)
    assert has_changes(source.parent) is False
    record.write_text("2")
    assert has_changes(source.parent) is False
    source.write_text("2")
    assert has_changes(source.parent) is True
