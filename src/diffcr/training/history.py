"""history.jsonl: what a run logged, line by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffcr.files import write_text


class History:
    """history.jsonl: one line per logged step, none twice."""

    def __init__(self, path: Path, resumed_step: int) -> None:
        self.path = path
        kept = [line for line in read_history(path) if line["step"] <= resumed_step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    def append(self, values: dict[str, Any]) -> None:
        """Add a line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")


def read_history(path: Path) -> list[dict[str, Any]]:
    """Lines of a history; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]
