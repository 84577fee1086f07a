"""Commands run at a time, and what fails is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from side_by_side import run_side_by_side, say_what_failed

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
