"""Which revision of the source a measurement was taken with."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_RECORDS = "benchmarks/results"


@dataclass(frozen=True)
class Revision:
    """Commit of the source and whether tracked files differ from it, records of measurements left
    out; None outside of a checkout."""

    commit: str | None
    dirty: bool | None


def find_revision() -> Revision:
    """Revision of the checkout that this package runs from.

    A package that is installed below somebody else's repository is not tracked by it, and its
    commit says nothing about our code.
    """
    here = Path(__file__).resolve()
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return Revision(None, None)
    commit = _git(here.parent, "rev-parse", "HEAD")
    return Revision(commit, has_changes(here.parent))


def has_changes(directory: Path) -> bool | None:
    """Whether tracked files of the repository around a directory differ from its commit. Records do
    not count: one measurement after another writes them."""
    everything = ("--", ":/", f":(top,exclude){_RECORDS}")
    changes = _git(directory, "status", "--porcelain", "--untracked-files=no", *everything)
    return None if changes is None else bool(changes)


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        finished = subprocess.run(
            ["git", *arguments], cwd=directory, capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return finished.stdout.strip() if finished.returncode == 0 else None
