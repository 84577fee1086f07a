"""Rows and measures of the inpainting comparison."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import inpainting
import inpainting_edits
import numpy as np
import pytest
import torch
from inpainting_edits import likeness, photograph_edits, write_scenes_and_photographs
from inpainting_tables import PAPER, counted_flops
from PIL import Image

import diffcr
from diffcr.binding.attachment import attach
from diffcr.files import read_json
from diffcr.inpainting.sampling import pixels_per_token, working_side
from diffcr.methods.registry import config_from_json_dict
from diffcr.records.record import read_record
from diffcr.scenes import ScenesDataset
from diffcr.training.data.pictures import ImageFolder
from diffcr.training.recipe import recipe_from_dict
from tests.inpainting.hosts import tiny_lazy_pipeline


@pytest.mark.parametrize("name", sorted(path.stem for path in inpainting.ROWS.glob("*.json")))
def test_a_row_can_be_opened(name: str) -> None:
    row = read_json(inpainting.ROWS / f"{name}.json")
    own = set(row) - {"num_inference_steps", "images", "photographs"}
    assert own <= {"baseline", "method", "trained"} and len(own) <= 1
    if "trained" in row:
        recipe = inpainting.row_recipe(name, seed=2)
        parts = {"photographs": "both", "encoder-50": "encoder"}
        assert recipe.seed == 2 and recipe.inpainting is not None
        assert recipe.inpainting.part == parts.get(name, "decoder")
    if "method" in row:
        attach(tiny_lazy_pipeline(), config_from_json_dict(row["method"]))
    if "baseline" in row:
        pipe = inpainting.open_row(name, seed=0)
        assert (working_side(pipe.pipe), pixels_per_token(pipe.pipe)) == (128, 8)


def test_photographs_are_the_same_every_time_and_masked_in_part() -> None:
    edits, again = (photograph_edits(12, 64, 0.5) for _ in range(2))
    for edit, other in zip(edits, again, strict=True):
        assert edit.image.size == (64, 64) and edit.mask.shape == (64, 64) and edit.mask.any()
        assert np.array_equal(np.asarray(edit.image), np.asarray(other.image))
    assert len({edit.image.tobytes() for edit in edits}) == 12


def test_the_second_set_has_scenes_and_crops_of_other_photographs(tmp_path: Path) -> None:
    assert not {*inpainting_edits.PAINTED_AGAIN} & {*inpainting_edits.TRAINED_ON}
    write_scenes_and_photographs(tmp_path / "pictures", 22, 64)
    folder = ImageFolder(tmp_path / "pictures", 64)
    assert len(folder) == 22
    assert [bool(folder[i].caption) for i in range(22)] == [True, False] * 11
    assert folder[2].caption == ScenesDataset("train", size=2, resolution=64)[1].caption
    assert len({folder[i].image.tobytes() for i in range(22)}) == 22
    again = (tmp_path / "pictures" / "00001.png").stat()
    write_scenes_and_photographs(tmp_path / "pictures", 22, 64)
    assert (tmp_path / "pictures" / "00001.png").stat() == again


@pytest.mark.parametrize("part", ["both", "decoder", "encoder"])
def test_a_row_is_opened_with_the_part_that_was_trained(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = tiny_lazy_pipeline()
    final = tmp_path / "run" / "final"
    models = {"decoder": [trained.transformer], "encoder": [trained.encoder]}.get(
        part, [trained.transformer, trained.encoder]
    )
    method = {"method": "dense"} if part == "both" else {"method": "mod", "compression_ratio": 0.5}
    if part != "both":
        attach(models[0], config_from_json_dict(method))
    with torch.no_grad():
        for parameter in (p for model in models for p in model.parameters()):
            parameter.add_(0.5)
    if part == "both":
        trained.transformer.save_pretrained(str(final / "transformer"))
        trained.encoder.save_pretrained(str(final / "encoder"))
    else:
        diffcr.save(models[0], final, weights=True)
    values = {"name": "run", "method": method, "finetune": "full"}
    values["inpainting"] = {"part": part}
    recipe = recipe_from_dict(values, "test")
    monkeypatch.setattr(inpainting, "_trained", lambda recipe: tmp_path / "run")
    pipe = tiny_lazy_pipeline()
    inpainting._load_trained(pipe, recipe)
    for name in ("transformer", "encoder"):
        own, given, plain = (
            getattr(p, name).state_dict() for p in (pipe, trained, tiny_lazy_pipeline())
        )
        changed = part in ("both", "decoder" if name == "transformer" else "encoder")
        expected = given if changed else plain
        assert all(torch.equal(own[key], expected[key]) for key in plain)


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
        assert record.results["scenes"]["untouched_pixels_equal"], path
        assert record.results["photographs"]["untouched_pixels_equal"], path


def test_the_papers_inpainting_costs_what_it_says() -> None:
    """Joining context and the patches of the whole picture come on top here."""
    masked, place = 256, 1
    ours = counted_flops("dense", masked) - PAPER["Lazy Diffusion"].flops[place]
    shares = {"ToMe": 0.0002, "MoD": 0.009, "model pruning": 0.021, "AT-EDM": 0.02}
    for name, share in shares.items():
        row = PAPER[name]
        paper = row.flops[place]
        assert abs(counted_flops(row.method, masked) - ours - paper) < share * paper, name
