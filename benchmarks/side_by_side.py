"""Rows in processes of their own, several at a time: a GPU holds many of these small models, and
each waits for its processor."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tqdm.auto import tqdm


def run_side_by_side(
    commands: Mapping[str, Sequence[str]], jobs: int, logs: Path
) -> dict[str, Path]:
    """Run Python commands, `jobs` at a time, the first ones first.

    Args:
        commands: Arguments of the interpreter, by the name of the row.
        jobs: Processes at a time; they share the cores that OMP_NUM_THREADS leaves open.
        logs: Directory that each command's output is written to, as NAME.log.

    Returns:
        The logs of those that failed, by name.
    """
    logs.mkdir(parents=True, exist_ok=True)
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    environment = {"OMP_NUM_THREADS": threads, **os.environ}

    def run(name: str, command: Sequence[str]) -> int:
        with (logs / f"{name}.log").open("w") as log:
            given = [sys.executable, *command]
            return subprocess.run(given, stdout=log, stderr=log, env=environment).returncode

    failed = {}
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(run, name, command): name for name, command in commands.items()}
        for done in tqdm(as_completed(running), total=len(running), unit=" rows"):
            if done.result():
                failed[running[done]] = logs / f"{running[done]}.log"
    return failed


def say_what_failed(failed: Mapping[str, Path]) -> None:
    """One line and exit code 1, where there is something to say."""
    if failed:
        sys.exit("failed: " + ", ".join(f"{name} ({log})" for name, log in failed.items()))
