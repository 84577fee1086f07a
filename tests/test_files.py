"""Files: read strictly, written whole, one writer at a time."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from diffcr.errors import DiffCRError
from diffcr.files import (
    clear_left_overs,
    read_json,
    replacing_directory,
    replacing_file,
    write_tensors,
)
from diffcr.ownership import locked_directory


@pytest.mark.parametrize(
    ("text", "saying"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' is there twice"),
        ('{"a": NaN}', "NaN is no number"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": "\\ud800"}', "surrogates not allowed"),
        ('{"a": ' + "1" * 5000 + "}", "Exceeds the limit"),
        ("[1]", "no JSON object"),
        ("{", "damaged"),
    ],
)
def test_json_that_is_none_is_one_line(tmp_path: Path, text: str, saying: str) -> None:
    path = tmp_path / "some.json"
    path.write_text(text)
    with pytest.raises(DiffCRError, match=saying) as caught:
        read_json(path)
    assert "some.json" in str(caught.value) and len(str(caught.value)) <= 400
    assert "\n" not in str(caught.value)


def test_what_is_no_ordinary_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path, tmp_path / "pipe.json", tmp_path / "none.json", tmp_path / ("x" * 300)):
        with pytest.raises(DiffCRError, match="cannot be read"):
            read_json(path)
    (tmp_path / "large.json").touch()
    os.truncate(tmp_path / "large.json", 2**26)
    with pytest.raises(DiffCRError, match="larger than 32768 KiB"):
        read_json(tmp_path / "large.json")


def test_a_longer_error_keeps_both_of_its_ends() -> None:
    text = str(DiffCRError("begin " + "x" * 10_000 + "\nwhat to do"))
    assert text.startswith("begin x") and text.endswith("x what to do") and len(text) <= 400


def test_threads_that_write_one_file_do_not_meet(tmp_path: Path) -> None:
    target, failures = tmp_path / "file", []

    def write(number: int) -> None:
        try:
            for _ in range(50):
                with replacing_file(target) as temporary:
                    temporary.write_text(str(number) * 100)
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert target.read_text() in {str(number) * 100 for number in range(4)}
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_write_clears_only_what_has_been_dead_for_a_day(tmp_path: Path) -> None:
    names = ("file." + "0" * 12, "file." + "1" * 12, "other." + "2" * 12, "file.mine")
    old, young, others, mine = (tmp_path / f".{name}.partial" for name in names)
    for path in (old, young, others, mine):
        path.mkdir()
    day_before = time.time() - 25 * 3600
    for path in (old, others, mine):
        os.utime(path, (day_before, day_before))
    with replacing_directory(tmp_path / "file") as written:
        (written / "a").write_text("a")
    assert not old.exists() and young.exists() and others.exists()
    clear_left_overs(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"file", mine.name}


def test_what_was_complete_when_its_writer_was_killed_takes_its_place(tmp_path: Path) -> None:
    between = tmp_path / ".step.0123456789ab.partial"
    for name in ("written", "previous"):
        (between / name).mkdir(parents=True)
        (between / name / "file").write_text(name)
    clear_left_overs(tmp_path)
    assert (tmp_path / "step" / "file").read_text() == "written"
    assert not between.exists()


def test_a_locked_directory_is_refused_to_others(tmp_path: Path) -> None:
    with locked_directory(tmp_path / "run"):
        with (
            pytest.raises(DiffCRError, match="being written by another run"),
            locked_directory(tmp_path / "run"),
        ):
            pass
        with locked_directory(tmp_path / "other"):
            pass
    with locked_directory(tmp_path / "run"):
        pass


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file grows beyond 64 KiB, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "a.safetensors"
    write_tensors(target, {"a": torch.zeros(10)})
    before = target.read_bytes()
    with pytest.raises(DiffCRError, match=r"a\.safetensors.* cannot be written"):
        write_tensors(target, {"a": torch.zeros(100_000)})
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
