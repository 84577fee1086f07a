"""Pictures for the tests of this folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.training.shards import PICTURES, picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures")
    lines = []
    for index in range(PICTURES):
        picture(index).save(path / f"{index}.png")
        text = f"a {'large ' * (index % 3)}red circle {index % 5}"
        lines.append(json.dumps({"file_name": f"{index}.png", "text": text}))
    (path / "metadata.jsonl").write_text("\n".join(lines))
    return path
