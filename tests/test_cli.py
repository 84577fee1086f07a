"""The command line: mistakes are one line and exit code 2, and lose nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from diffcr.pretrained import default_checkpoint_path


def _diffcr(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "diffcr", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
    )


def _fails(*arguments: object, saying: str, cwd: Path | None = None) -> None:
    finished = _diffcr(*arguments, cwd=cwd)
    assert finished.returncode == 2, finished.stderr
    lines = [line for line in finished.stderr.splitlines() if line.startswith("diffcr: error:")]
    assert len(lines) == 1 and saying in lines[0], finished.stderr
    assert "Traceback" not in finished.stderr


def test_help_names_the_commands() -> None:
    finished = _diffcr("--help")
    assert finished.returncode == 0
    for command in ("train", "generate", "eval", "models", "demo"):
        assert command in finished.stdout


def test_usage_errors(tmp_path: Path) -> None:
    _fails("generate", saying="there is no prompt")
    _fails("generate", "x", "--steps", "0", saying="--steps")
    _fails("frobnicate", saying="frobnicate")
    _fails("generate", "x", "--dense", "--checkpoint", "y", saying="exclude each other")
    empty = tmp_path / "prompts.txt"
    empty.write_text("\n\n")
    _fails("generate", "--prompts", empty, saying="is empty")
    _fails("generate", "--prompts", tmp_path / "none.txt", saying="cannot be read")


def test_recipe_errors(tmp_path: Path) -> None:
    _fails("train", tmp_path / "none.yaml", saying="none.yaml cannot be read")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: x\nstep: 4\n")
    _fails("train", recipe, saying="did you mean 'steps'")
    recipe.write_text("name: x\nmethod: {method: diffcr, target_compression_ratio: 0.95}\n")
    _fails("train", recipe, saying="target_compression_ratio is 0.95")
    recipe.write_text("name: x\n")
    _fails("train", recipe, "--data", tmp_path / "no", cwd=tmp_path, saying="is not a folder")
    assert not (tmp_path / "runs").exists()


def test_model_and_checkpoint_errors(tmp_path: Path) -> None:
    _fails("generate", "x", "--dense", "--model", tmp_path / "no", saying="is not a directory")
    _fails("generate", "x", "--checkpoint", tmp_path / "no", saying="is not a directory")
    _fails("generate", "x", "--checkpoint", "nobody/nothing", saying="from the Hub")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in default_checkpoint_path().iterdir():
        if path.is_file():
            (damaged / path.name).write_bytes(path.read_bytes()[:100])
    _fails("generate", "x", "--checkpoint", damaged, saying="damaged")


def test_generate_writes_indexed_png_and_refuses_to_overwrite(tmp_path: Path) -> None:
    arguments = (
        "generate",
        "a large red circle",
        "a blue star",
        "--steps",
        2,
        "--output",
        tmp_path,
    )
    finished = _diffcr(*arguments)
    assert finished.returncode == 0, finished.stderr
    assert "2 images" in finished.stdout
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["image-0000.png", "image-0001.png"]
    before = (tmp_path / "image-0000.png").read_bytes()
    assert Image.open(tmp_path / "image-0000.png").size == (96, 96)
    _fails(*arguments, saying="--force")
    assert (tmp_path / "image-0000.png").read_bytes() == before
    assert _diffcr(*arguments, "--force").returncode == 0
    assert (tmp_path / "image-0000.png").read_bytes() == before


def test_models_lists_what_is_supported() -> None:
    finished = _diffcr("models")
    assert finished.returncode == 0
    assert "PixArtTransformer2DModel" in finished.stdout


@pytest.mark.slow
def test_train_and_generate_end_to_end(tmp_path: Path) -> None:
    run = tmp_path / "run"
    finished = _diffcr("train", "scenes-diffcr-lt", "--steps", 3, "--output", run)
    assert finished.returncode == 0, finished.stderr
    images = tmp_path / "images"
    finished = _diffcr(
        "generate", "a star", "--checkpoint", run / "final", "--steps", 2, "--output", images
    )
    assert finished.returncode == 0, finished.stderr
    assert (images / "image-0000.png").exists()
