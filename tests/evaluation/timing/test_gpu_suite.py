"""The suite for one GPU, tried on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffcr.records.record import read_record

_SUITE = Path(__file__).parents[3] / "benchmarks" / "gpu_suite.sh"
pytestmark = pytest.mark.skipif(not _SUITE.exists(), reason="not in a clone")


def test_the_suite_says_what_it_needs() -> None:
    for arguments, environment, message in (
        ((), {}, "OUT is not set"),
        (("--all",), {"OUT": "runs/never"}, "--all is not known"),
    ):
        finished = subprocess.run(
            ["bash", str(_SUITE), *arguments],
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"], "PYTHON": sys.executable, **environment},
        )
        assert finished.returncode == 2
        assert message in finished.stderr
        assert len(finished.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("part", "kinds"),
    [
        ("a", {"a-eager-64.json": "bench", "a-profile.json": "profile"}),
        ("b", {"b-flux-dev.json": "bench", "b-wan-1.3b.json": "bench"}),
        ("c", {"c-batch-64.json": "bench", "c-compiled.json": "bench"}),
        ("d", {"d-quality/report.json": "evaluation", "d-cached/report.json": "evaluation"}),
    ],
)
def test_a_part_writes_its_records(part: str, kinds: dict[str, str], tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable, "OUT": str(tmp_path)}
    finished = subprocess.run(
        ["bash", str(_SUITE), "--smoke", part], cwd=_SUITE.parents[1], env=environment
    )
    assert finished.returncode == 0
    assert {name: read_record(tmp_path / name).kind for name in kinds} == kinds
