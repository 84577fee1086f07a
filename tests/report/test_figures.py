"""Figures are drawn from records, whatever the table's size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from diffcr.records.record import read_record, write_record
from diffcr.report.figures.curves import (
    plot_loss_against_ratio,
    plot_losses,
    plot_trajectories,
)
from diffcr.report.figures.heat_maps import plot_compression, plot_router_auc
from diffcr.report.figures.labels import PointLabel, write_labels
from diffcr.report.figures.pictures import plot_images, plot_router_maps, plot_sheets
from diffcr.report.figures.record import plot_all
from tests.evaluation.synthetic import synthetic_record


@dataclass(frozen=True)
class Results:
    results: dict[str, Any]


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_every_figure_is_drawn_from_a_record_that_was_read(tmp_path: Path) -> None:
    record = read_record(write_record(synthetic_record(tmp_path), tmp_path / "report.json"))
    figures = plot_all(record, tmp_path)
    names = [figure.path.name for figure in figures]
    assert names == [
        "compression.png",
        "trajectory.png",
        "router_maps.png",
        "router_auc.png",
        "images.png",
    ]
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == sorted(names)
    for figure in figures:
        assert len(np.unique(_read(figure.path).reshape(-1, 3), axis=0)) > 20


def test_figures_without_data_are_left_out(tmp_path: Path) -> None:
    assert plot_all(Results({}), tmp_path) == []


@pytest.mark.parametrize(("layers", "regions"), [(1, 1), (28, 10)])
def test_the_heat_map_grows_with_the_table(tmp_path: Path, layers: int, regions: int) -> None:
    table = np.full((layers, regions), 0.3).tolist()
    plot_compression({"map": Results({"compression": {"realised": table}})}, tmp_path / "map.png")
    height, width, _ = _read(tmp_path / "map.png").shape
    assert height > 45 * layers
    assert width > 150 * regions


def test_the_heat_map_shows_the_table(tmp_path: Path) -> None:
    for name, value in (("low", 0.0), ("high", 0.9)):
        table = np.full((2, 2), value).tolist()
        record = Results({"compression": {"realised": table}})
        plot_compression({"map": record}, tmp_path / f"{name}.png")
    low, high = _read(tmp_path / "low.png"), _read(tmp_path / "high.png")
    # cividis runs from dark blue to yellow.
    assert np.median(high.astype(int)[..., 0]) > np.median(low.astype(int)[..., 0]) + 100


def test_flat_scores_and_a_missing_mask_are_drawn(tmp_path: Path) -> None:
    maps = np.full((2, 3, 4, 4), 0.5).tolist()
    values = {"caption": "a cat", "timesteps": [9, 1], "scores": maps, "kept": maps}
    for mask in (None, np.zeros((8, 8)).tolist()):
        plot_router_maps(Results({"router_maps": {**values, "mask": mask}}), tmp_path / "maps.png")
        assert _read(tmp_path / "maps.png").std() > 0


def test_a_single_prompt_and_long_captions_are_drawn(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    images = {"prompts": ["word " * 60], "dense": ["a.png"]}
    plot_images(Results({"images": images}), tmp_path, tmp_path / "grid.png")
    assert (_read(tmp_path / "grid.png") == (255, 0, 0)).all(axis=-1).mean() > 0.15


def test_seeds_stand_side_by_side_on_one_scale(tmp_path: Path) -> None:
    low, high = (
        Results({"compression": {"realised": np.full((2, 2), value).tolist()}})
        for value in (0.0, 0.9)
    )
    plot_compression({"low": low, "high": high}, tmp_path / "both.png")
    pixels = _read(tmp_path / "both.png").astype(int)
    middle = pixels.shape[1] // 2
    assert np.median(pixels[:, middle:, 0]) > np.median(pixels[:, :middle, 0])


def test_areas_are_coloured_around_chance(tmp_path: Path) -> None:
    records = {
        name: Results({"router_auc": {"mean": np.full((2, 2), value).tolist()}})
        for name, value in (("background", 0.1), ("chance", 0.5), ("objects", 0.9))
    }
    for name, record in records.items():
        plot_router_auc({name: record}, tmp_path / f"{name}.png")
    low, chance, high = (
        np.median(_read(tmp_path / f"{name}.png").astype(int), axis=(0, 1)) for name in records
    )
    assert np.ptp(chance) < 10 and chance.min() > 235
    assert low[2] > low[0] + 20
    assert high[0] > high[2] + 100


def test_each_seed_and_method_adds_its_line(tmp_path: Path) -> None:
    record = synthetic_record(tmp_path)
    plot_trajectories([record], tmp_path / "one.png")
    values = record.results["trajectory"]
    later = {**values, "mean": [0.5 * v for v in values["mean"]]}
    plot_trajectories([record, Results({"trajectory": later})], tmp_path / "two.png")
    assert (_read(tmp_path / "one.png") != _read(tmp_path / "two.png")).any()

    trained = _stage(0.3, 0.06)
    learned = Results({**trained, "by_products": [_stage(0.1, 0.05), _stage(0.2, 0.055)]})
    dense = Results({"held_out_loss": {"dense": {"mean": 0.05}}})
    plot_loss_against_ratio({"learned": [learned], "dense": [dense]}, tmp_path / "curve.png")
    plot_loss_against_ratio({"learned": [learned]}, tmp_path / "alone.png")
    assert (_read(tmp_path / "curve.png") != _read(tmp_path / "alone.png")).any()


def _stage(ratio: float, loss: float) -> dict[str, Any]:
    losses = {"compressed": {"mean": loss}}
    return {"compression": {"realised_mean": ratio}, "held_out_loss": losses}


def test_a_sheet_shows_its_first_row(tmp_path: Path) -> None:
    sheet = Image.new("RGB", (16, 16), "blue")
    sheet.paste("red", (0, 0, 16, 8))
    sheet.save(tmp_path / "sheet.png")
    plot_sheets({"dense": tmp_path / "sheet.png"}, ["a", "b"], tmp_path / "rows.png")
    pixels = _read(tmp_path / "rows.png")
    assert (pixels == (255, 0, 0)).all(axis=-1).mean() > 0.1
    assert not (pixels == (0, 0, 255)).all(axis=-1).any()


def test_the_course_of_a_loss_is_drawn(tmp_path: Path) -> None:
    plot_losses([3.0, 0.3, 0.2], 300, tmp_path / "loss.png")
    assert _read(tmp_path / "loss.png").std() > 0


def test_labels_touch_neither_one_another_nor_a_mark() -> None:
    figure = Figure(figsize=(4, 3))
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    points = [(1.0, 2.0), (1.01, 2.05), (1.02, 1.98), (2.0, 3.0)]
    axes.errorbar(*zip(*points, strict=True), yerr=0.2, marker="o", capsize=3)
    figure.draw_without_rendering()
    write_labels(axes, [PointLabel(f"{i} steps", point, "k", 9) for i, point in enumerate(points)])
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in axes.texts]
    assert len(boxes) == 4
    for place, box in enumerate(boxes):
        assert box.count_overlaps(boxes[:place]) == 0
        assert box.count_contains(axes.transData.transform(points)) == 0
        assert axes.bbox.count_contains(box.corners()) == 4
