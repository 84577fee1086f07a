"""Rows and measures of the inpainting comparison."""

from __future__ import annotations

from dataclasses import replace

import inpainting
import numpy as np
import pytest
from inpainting_edits import likeness, photograph_edits
from PIL import Image

from diffcr.attachment import attach
from diffcr.config import config_from_json_dict
from diffcr.evaluation.records import read_record
from diffcr.files import read_json
from tests.inpainting.hosts import tiny_lazy_pipeline


@pytest.mark.parametrize("name", sorted(path.stem for path in inpainting.ROWS.glob("*.json")))
def test_a_row_can_be_opened(name: str) -> None:
    row = read_json(inpainting.ROWS / f"{name}.json")
    assert set(row) <= {"baseline", "method", "trained"} and len(row) <= 1
    if "trained" in row:
        recipe = inpainting.row_recipe(name, seed=2)
        assert recipe.seed == 2 and recipe.inpainting and recipe.inpainting.part == "decoder"
    if "method" in row:
        attach(tiny_lazy_pipeline(), config_from_json_dict(row["method"]))
    if "baseline" in row:
        pipe = inpainting.open_row(name, seed=0)
        assert (pipe.model_side, pipe.pixels_per_token) == (128, 8)


def test_photographs_are_the_same_every_time_and_masked_in_part() -> None:
    edits, again = (photograph_edits(12, 64, 0.5) for _ in range(2))
    for edit, other in zip(edits, again, strict=True):
        assert edit.image.size == (64, 64) and edit.mask.shape == (64, 64) and edit.mask.any()
        assert np.array_equal(np.asarray(edit.image), np.asarray(other.image))
    assert len({edit.image.tobytes() for edit in edits}) == 12


def test_likeness_is_of_what_is_masked_and_notices_a_touched_pixel() -> None:
    edit = photograph_edits(1, 64, 0.5)[0]
    mask = np.zeros((64, 64), dtype=bool)
    mask[10:30, 10:30] = True
    edit = replace(edit, mask=mask)
    pixels = np.asarray(edit.image).astype(np.int32)
    shifted = np.where(mask[..., None], np.where(pixels < 128, pixels + 10, pixels - 10), pixels)
    image = Image.fromarray(shifted.astype(np.uint8))
    found = likeness([image], [edit])
    assert found["psnr_under_mask"] == pytest.approx(20 * np.log10(255 / 10))
    assert 0 < found["structural_similarity_under_mask"] < 1
    assert found["untouched_pixels_equal"] is True
    touched = shifted.copy()
    touched[50, 50, 0] ^= 1
    elsewhere = Image.fromarray(touched.astype(np.uint8))
    assert likeness([elsewhere], [edit])["untouched_pixels_equal"] is False
    ring = shifted.copy()
    ring[9, 20, 0] ^= 1
    near = Image.fromarray(ring.astype(np.uint8))
    assert likeness([near], [edit])["untouched_pixels_equal"] is True


def test_records_come_from_a_commit() -> None:
    for path in sorted((inpainting.RESULTS / "inpainting").glob("*.json")):
        record = read_record(path)
        assert record.commit is not None and not record.dirty, path
        assert record.results["quality"]["untouched_pixels_equal"], path
        assert record.results["photographs"]["untouched_pixels_equal"], path
