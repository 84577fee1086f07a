"""Starting the page, and what it says without a browser."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from diffcr.cli import main
from diffcr.errors import DiffCRError
from diffcr.studio import start
from diffcr.studio.chart import Axis
from diffcr.studio.frontier import read_frontier
from tests.pipelines import tiny_pixart_pipeline
from tests.studio.conftest import RECORDS


def test_this_machine_alone_reaches_the_page() -> None:
    studio = start(tiny_pixart_pipeline())
    try:
        port = int(studio.url.rstrip("/").rpartition(":")[2])
        assert studio.url.startswith("http://127.0.0.1:")
        with socket.create_connection(("127.0.0.1", port), timeout=10):
            pass
        # Another address of the same machine.
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), timeout=10)
        with pytest.raises(DiffCRError, match=f"port {port}"):
            start(tiny_pixart_pipeline(), port=port)
    finally:
        studio.close()


def test_the_command_says_in_one_line_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["studio", "--model", "nowhere"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("diffcr: error: nowhere is not a directory")


def test_the_frontier_holds_the_measured_series() -> None:
    frontier = read_frontier(RECORDS)
    assert frontier.series["reuse-steps"] == "Reuse of whole steps"
    assert frontier.point("dense-20-steps").cost == 1.0
    assert len(frontier.pictures("dense-10-steps")) == 8
    assert frontier.pictures("pruning-50") == []
    chart = frontier.draw(["pruning"])
    assert chart.count("<polyline") == 1 and 'data-name="pruning-30"' in chart
    with pytest.raises(DiffCRError, match="7 methods are chosen"):
        frontier.draw([*"abcdefg"])
    with pytest.raises(DiffCRError, match="no row is called '../x'"):
        frontier.point("../x")


def test_a_directory_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DiffCRError, match="holds no records"):
        read_frontier(tmp_path)


def test_ticks_are_round_and_within_the_axis() -> None:
    assert Axis("x", 38.2, 103.4).ticks() == [40, 60, 80, 100]
    assert Axis("x", 0, 0.83).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
