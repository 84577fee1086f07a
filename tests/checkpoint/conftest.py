"""A checkpoint for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

import diffcr
from tests.checkpoint.stored import with_lora


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return diffcr.save(with_lora(), tmp_path / "checkpoint")
