"""The examples run as written, and are short."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import diffcr
from diffcr import hosts
from diffcr.evaluation.generate import generate_images
from diffcr.pretrained import load_default_pipeline
from diffcr.training.data.pictures import ImageFolder
from tests.pipelines import tiny_pixart_pipeline

EXAMPLES = Path(__file__).parents[1] / "examples"
_MOST_LINES = 60


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs an example in an empty directory; its output."""
    monkeypatch.chdir(tmp_path)

    def run_example(name: str, *arguments: str) -> str:
        path = EXAMPLES / f"{name}.py"
        monkeypatch.setattr(sys, "argv", [str(path), *arguments])
        runpy.run_path(str(path), run_name="__main__")
        return capsys.readouterr().out

    return run_example


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A tiny pipeline's directory."""
    directory = tmp_path / "model"
    tiny_pixart_pipeline().save_pretrained(directory)
    return str(directory)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_read_at_a_glance(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.strip()]) <= _MOST_LINES


def test_a_pipeline_of_ones_own_is_calibrated(run: Callable[..., str], model: str) -> None:
    output = run("calibrate_own_pipeline", model)
    assert "dense steps first: 50% skipped" in output
    reuser = diffcr.load(tiny_pixart_pipeline(), "half")
    assert reuser.config.granularity == "steps"


def test_one_pipeline_has_several_speeds(run: Callable[..., str], model: str) -> None:
    lines = run("dial", model).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["budget 100%", "budget 70%", "budget 50%"]
    pictures = {Path(f"images/budget-{budget}-0000.png").read_bytes() for budget in (100, 70, 50)}
    assert len(pictures) == 3


def test_methods_are_compared(run: Callable[..., str], model: str) -> None:
    lines = run("compare_methods", model).splitlines()
    assert lines[0].startswith("dense") and lines[0].endswith(" 0.00 of 255 from dense")
    assert len(lines) == 5
    pictures = {path.name: path.read_bytes() for path in Path("images").glob("*-0000.png")}
    assert len(pictures) == len({*pictures.values()}) == 5


def test_a_checkpoints_picture_stands_beside_the_dense_one(run: Callable[..., str]) -> None:
    files = run("compare_images").split()
    assert files == ["images/dense-0000.png", "images/compressed-0000.png"]
    prompt = "a large red circle in the centre on a plain white background"
    bare = generate_images(load_default_pipeline(), [prompt], seed=1)[0]
    with Image.open(files[0]) as dense, Image.open(files[1]) as compressed:
        assert dense.tobytes() == bare.tobytes() != compressed.tobytes()


def test_a_part_of_a_picture_is_painted_again(run: Callable[..., str]) -> None:
    output = run("inpaint", "2")
    assert "second stroke" in output and "of the picture was masked" in output
    with Image.open("inpainted-first.png") as first, Image.open("inpainted-second.png") as second:
        assert first.size == (128, 128) and first.tobytes() != second.tobytes()


def test_an_own_training_loop_learns_ratios(run: Callable[..., str]) -> None:
    assert "step 5" in run("own_training_loop", "5")
    compressor = diffcr.load(load_default_pipeline("cpu"), "runs/own-loop/compressed")
    assert compressor.mean_compression_ratio > 0


def test_a_model_is_added_from_outside(
    run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "_FAMILIES", dict(hosts._FAMILIES))
    output = run("add_a_model")
    assert "attached, equal to the bit: True" in output
    assert "half of the tokens, finite: True" in output
    assert "PeculiarTransformer with DiffCRConfig" in output


def test_photographs_train_like_any_folder(run: Callable[..., str]) -> None:
    run("make_photo_folder", "photos")
    photos = ImageFolder(Path("photos"), 96)
    assert len(photos) == 11
    assert photos[0].image.size == (96, 96)
    assert len({photos[i].caption for i in range(11)}) == 11
    output = run("fine_tune_own_pictures", "photos", "2")
    assert "of the tokens skipped" in output and "DiffCRConfig" in output
    compressor = diffcr.load(load_default_pipeline("cpu"), "runs/own-pictures")
    assert compressor.mean_compression_ratio > 0
