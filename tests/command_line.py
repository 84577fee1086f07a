"""The command line, in this process and in its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from diffcr.cli import main

Fails = Callable[..., None]


COMMAND = [sys.executable, "-m", "diffcr"]


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **variables}


def run_diffcr(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(**variables),
    )


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    assert isinstance(exit_.value.code, int)
    return exit_.value.code
