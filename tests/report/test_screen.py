"""What commands say in their end."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from diffcr.records.record import Record, make_record
from diffcr.report.screen import Screen, gains, show_screen


def _record(**latency: Any) -> Record:
    values = {"dense": 1.0, "compressed": 0.9, "ratio": 0.9, "pairs": 9, **latency}
    results = {"latency": {"pipeline": values, "note": "merged"}}
    return make_record("evaluation", {}, results, seeds={"images": 0})


@pytest.mark.parametrize(
    ("latency", "said"),
    [
        ({"interval": [0.88, 0.92], "control_interval": [0.98, 1.03]}, "90.0% of dense (88.0% to"),
        ({"interval": [0.8, 1.1], "control_interval": [0.9, 1.2]}, "itself gave 90.0% to 120.0%"),
        ({"interval": [0.9, 0.9], "control_interval": None, "pairs": 1}, "too few pairs (1)"),
    ],
)
def test_a_time_within_the_noise_says_so(latency: dict[str, Any], said: str) -> None:
    (line,) = gains(_record(**latency))
    assert said in line
    assert ("noise" in line) == ("(88.0%" not in line)


def test_a_narrow_terminal_breaks_no_command() -> None:
    text = io.StringIO()
    command = 'diffcr generate --checkpoint runs/[a]/checkpoint --model pipelines/mine "a prompt"'
    screen = Screen(["trained on [x]"], ["a word " * 12], [command])
    show_screen(screen, Console(file=text, width=40))
    lines = text.getvalue().splitlines()
    assert f"  {command}" in lines and "  trained on [x]" in lines
    assert all(len(line) <= 40 for line in lines if command not in line)
