"""The examples run as written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import diffcr
from diffcr.pretrained import load_default_pipeline
from diffcr.training.data.pictures import ImageFolder

EXAMPLES = Path(__file__).parents[1] / "examples"


def _run(tmp_path: Path, name: str, *arguments: str) -> str:
    finished = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_an_own_training_loop_learns_ratios(tmp_path: Path) -> None:
    output = _run(tmp_path, "own_training_loop.py", "5")
    assert "step 5" in output
    compressor = diffcr.load(load_default_pipeline("cpu"), tmp_path / "runs/own-loop/compressed")
    assert compressor.mean_compression_ratio > 0


def test_a_model_is_added_from_outside(tmp_path: Path) -> None:
    output = _run(tmp_path, "add_a_model.py")
    assert "attached, equal to the bit: True" in output
    assert "half of the tokens, finite: True" in output
    assert "PeculiarTransformer with DiffCRConfig" in output


def test_photographs_train_like_any_folder(tmp_path: Path) -> None:
    _run(tmp_path, "make_photo_folder.py", "photos")
    photos = ImageFolder(tmp_path / "photos", 96)
    assert len(photos) == 11
    assert photos[0].image.size == (96, 96)
    assert len({photos[i].caption for i in range(11)}) == 11
    finished = subprocess.run(
        [
            sys.executable,
            "-m",
            "diffcr",
            "train",
            "scenes-diffcr-lt",
            "--data",
            "photos",
            "--steps",
            "2",
            "--output",
            "runs/photos",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    compressor = diffcr.load(load_default_pipeline("cpu"), tmp_path / "runs/photos/final")
    assert compressor.mean_compression_ratio > 0
