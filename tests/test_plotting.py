"""Figures are drawn from records, whatever the table's size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffcr.evaluation.records import read_record, write_record
from diffcr.plotting.evaluation import plot_all, plot_compression, plot_images, plot_router_maps
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
    assert names == ["compression.png", "trajectory.png", "router_maps.png", "images.png"]
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == sorted(names)
    for figure in figures:
        assert len(np.unique(_read(figure.path).reshape(-1, 3), axis=0)) > 20


def test_figures_without_data_are_left_out(tmp_path: Path) -> None:
    assert plot_all(Results({}), tmp_path) == []


@pytest.mark.parametrize(("layers", "regions"), [(1, 1), (28, 10)])
def test_the_heat_map_grows_with_the_table(tmp_path: Path, layers: int, regions: int) -> None:
    table = np.full((layers, regions), 0.3).tolist()
    plot_compression(Results({"compression": {"realised": table}}), tmp_path / "map.png")
    height, width, _ = _read(tmp_path / "map.png").shape
    assert height > 45 * layers
    assert width > 150 * regions


def test_the_heat_map_shows_the_table(tmp_path: Path) -> None:
    for name, value in (("low", 0.0), ("high", 0.9)):
        table = np.full((2, 2), value).tolist()
        plot_compression(Results({"compression": {"realised": table}}), tmp_path / f"{name}.png")
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
