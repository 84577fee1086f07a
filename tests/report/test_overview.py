"""One page of many records."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffcr.cli import main
from diffcr.errors import DiffCRError
from diffcr.records.record import make_record, write_record
from diffcr.report.comparison import Seeds, read_collection, read_rows
from diffcr.report.figures.trade_off import (
    TradeOff,
    TradeOffPoint,
    plot_trade_offs,
    trade_offs,
)
from diffcr.report.overview import write_overview


def _row(accuracy: float, total: float, **more: Any) -> dict[str, Any]:
    quality = {"caption_accuracy": accuracy, "judge_frechet_distance": 1000 * (1 - accuracy)}
    return {
        "quality": {"compressed": quality},
        "flops": {
            "dense": {"linear": 8.0, "total": 10.0},
            "compressed": {"linear": 0.8 * total, "total": total},
        },
        **more,
    }


def _write(directory: Path, name: str, seed: int, results: dict[str, Any], steps: int) -> None:
    record = make_record(
        "experiment", {"num_inference_steps": steps}, results, seeds={"training": seed}
    )
    write_record(record, directory / "experiments" / f"{name}-seed-{seed}.json")


def _losses(mean: float) -> dict[str, Any]:
    return {"held_out_loss": {"compressed": {"noise": [mean, mean], "mean": mean}}}


@pytest.fixture
def records(tmp_path: Path) -> Path:
    for seed, accuracy in enumerate((0.90, 0.92, 0.97)):
        compressed = {"compression": {"realised_mean": 0.3}, **_losses(0.06)}
        _write(tmp_path, "mod-30", seed, _row(accuracy, 7.0, **compressed), 20)
    _write(tmp_path, "dense-20-steps", 0, _row(0.98, 10.0, **_losses(0.05)), 20)
    _write(tmp_path, "dense-10-steps", 0, _row(0.88, 10.0), 10)
    return tmp_path


@pytest.mark.parametrize("value", ["x", None, [], {}])
@pytest.mark.parametrize("where", ["experiment", "evaluation"])
def test_results_of_a_wrong_kind_are_named(records: Path, value: object, where: str) -> None:
    results = _row(0.9, 7.0)
    results["quality"]["compressed"]["caption_accuracy"] = value
    if where == "experiment":
        _write(records, "odd", 0, results, 20)
    else:
        write_record(make_record("evaluation", {}, results, seeds={}), records / "odd.json")
    with pytest.raises(DiffCRError, match=r"the results of odd are not what") as caught:
        write_overview(records, records / "page.html")
    assert "\n" not in str(caught.value) and not (records / "page.html").exists()


def _speed(directory: Path) -> None:
    pipeline = {
        "median_seconds": {"dense": 2.0, "mod-30": 1.5},
        "ratio_to_dense": {"mod-30": 0.75},
    }
    results = {"times": {"pipeline": pipeline}}
    write_record(
        make_record("speed", {}, results, seeds={}, samples={"pipeline/dense": [2.0]}),
        directory / "methods.json",
    )


def test_the_page_stands_alone_and_shows_every_row(records: Path) -> None:
    _speed(records)
    page = write_overview(records, records / "page.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
    for text in ("mod-30", "dense-10-steps", "93.0 ± 3.6", "30.0 ± 0.0", "70.0 (70.0)", "0.750"):
        assert text in page, text
    assert "not FID" in page


def test_a_row_without_held_out_loss_shows_none(records: Path) -> None:
    page = write_overview(records, records / "page.html").read_text()
    line = next(line for line in page.splitlines() if "dense-10-steps</td>" in line)
    assert line.count("<td>-</td>") == 3


def test_cost_is_operations_times_steps_until_time_was_measured(records: Path) -> None:
    wrong, _ = trade_offs(read_collection(records))
    costs = {(point.series, point.label): point.cost for point in wrong.points}
    assert costs == {
        ("mod", "30 %"): pytest.approx(0.7),
        ("fewer denoising steps", "20 steps"): 1.0,
        ("fewer denoising steps", "10 steps"): 0.5,
    }
    _speed(records)
    wrong, distance = trade_offs(read_collection(records))
    assert {point.row: point.cost for point in wrong.points} == {
        "mod-30": 0.75,
        "dense-20-steps": 1.0,
    }
    assert wrong.points[0].quality == pytest.approx(7.0)
    assert distance.points[0].quality > 0


def test_what_another_beats_in_cost_and_quality_is_grey(tmp_path: Path) -> None:
    points = [
        TradeOffPoint("ahead", "ahead", "", 0.5, 3.0, 0.0),
        TradeOffPoint("beaten", "beaten", "", 0.6, 4.0, 0.0),
    ]
    panel = TradeOff("time", "errors", points)
    drawn = {}
    for titles in ({"ahead": "x"}, {"beaten": "x"}, {"ahead": "x", "beaten": "y"}):
        path = tmp_path / "panel.png"
        plot_trade_offs([panel], path, titles)
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        drawn[*titles] = (np.ptp(pixels, axis=-1) > 60).sum()
    # Alone either is the best there is.
    assert drawn["ahead",] > 100 and drawn["beaten",] > 100
    assert drawn["ahead", "beaten"] < 1.5 * drawn["ahead",]


def test_what_is_within_the_spread_does_not_differ() -> None:
    wide, narrow = Seeds((0.9, 1.0, 1.1)), Seeds((1.05, 1.06, 1.07))
    assert not wide.differs_from(narrow) and not narrow.differs_from(wide)
    assert Seeds((2.0, 2.1)).differs_from(wide)


@pytest.mark.parametrize("made", [False, True])
def test_a_directory_without_records_is_one_line(tmp_path: Path, made: bool) -> None:
    directory = tmp_path / "nothing"
    if made:
        directory.mkdir()
    with pytest.raises(DiffCRError, match="give"):
        write_overview(directory, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_records_of_another_kind_are_no_rows(tmp_path: Path) -> None:
    write_record(make_record("speed", {}, {}, seeds={}), tmp_path / "a-seed-0.json")
    with pytest.raises(DiffCRError, match="kind 'speed'"):
        read_rows(tmp_path)


def test_the_command_keeps_a_page_that_is_there(
    records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = records / "page.html"
    for arguments, code in (((), 0), ((), 2), (("--force",), 0)):
        with pytest.raises(SystemExit) as exit_:
            main(["report", str(records), "--output", str(page), *arguments])
        assert (exit_.value.code or 0) == code
    assert "--force" in capsys.readouterr().err
