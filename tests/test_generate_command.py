"""diffcr generate, and a checkpoint from training to a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import diffcr
from diffcr.methods.reuse.config import ReuseConfig
from diffcr.pretrained import default_pipeline_path, load_default_pipeline
from tests.command_line import Fails, call, run_diffcr


def test_generate_writes_indexed_png_goes_on_and_refuses_to_overwrite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fails: Fails
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a blue star\n\n")
    output = tmp_path / "images"
    arguments = ("generate", "a large red circle", "--prompts", prompts, "--output", output)
    arguments += ("--steps", 2)
    assert call(*arguments) == 0
    printed = capsys.readouterr().out
    assert "2 images" in printed
    assert str(output) in printed
    files = sorted(output.glob("*.png"))
    assert [path.name for path in files] == ["image-0000.png", "image-0001.png"]
    assert Image.open(files[0]).size == (96, 96)
    before = [path.read_bytes() for path in files]
    files[1].unlink()
    written = files[0].stat().st_mtime_ns
    assert call(*arguments) == 0
    assert files[0].stat().st_mtime_ns == written
    assert [path.read_bytes() for path in files] == before
    fails(*arguments, "--seed", 1, saying="with seed 0, not 1: give another --output, or --force")
    (output / "generation.json").unlink()
    fails(*arguments, saying="by another command: give another --output, or --force")
    assert [path.read_bytes() for path in files] == before
    assert call(*arguments, "--force", "--seed", 1) == 0
    assert files[0].read_bytes() != before[0]
    assert call(*arguments, "--force") == 0
    assert [path.read_bytes() for path in files] == before


def test_generate_with_a_size_and_without_a_checkpoint(tmp_path: Path, fails: Fails) -> None:
    arguments = ("generate", "a star", "--dense", "--model", default_pipeline_path())
    arguments += ("--steps", 1, "--output", tmp_path / "images")
    fails(*arguments, "--height", 100, saying="--height is 100: give a multiple of 8")
    assert not (tmp_path / "images").exists()
    assert call(*arguments, "--height", 64, "--width", 128) == 0
    assert Image.open(tmp_path / "images" / "image-0000.png").size == (128, 64)


def test_generate_with_a_training_free_method(tmp_path: Path) -> None:
    arguments = ("generate", "a star", "--steps", 1, "--output")
    pictures = []
    for method in ("dense", "tome:0:block", "tome:0.5:block"):
        directory = tmp_path / method.replace(":", "-")
        assert call(*arguments, directory, "--method", method) == 0
        pictures.append((directory / "image-0000.png").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


@pytest.mark.slow
def test_train_and_generate_end_to_end(tmp_path: Path) -> None:
    run = tmp_path / "run"
    finished = run_diffcr("train", "scenes-diffcr-lt", "--steps", 3, "--output", run)
    assert finished.returncode == 0, finished.stderr
    images = tmp_path / "images"
    finished = run_diffcr(
        "generate", "a star", "--checkpoint", run / "final", "--steps", 2, "--output", images
    )
    assert finished.returncode == 0, finished.stderr
    assert (images / "image-0000.png").exists()


def test_generate_with_a_lora_in_the_weights(tmp_path: Path, fails: Fails) -> None:
    pipe = load_default_pipeline("cpu")
    diffcr.attach(pipe, ReuseConfig(0.5))
    diffcr.add_lora(pipe, rank=2)
    for name, parameter in pipe.transformer.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.02)
    arguments = ("generate", "a star", "--steps", 2, "--output")
    fails(*arguments, tmp_path / "none", "--fuse", saying="no DiffCR LoRA to fuse")
    assert not (tmp_path / "none").exists()
    arguments = (*arguments, tmp_path / "images", "--checkpoint", diffcr.save(pipe, tmp_path / "c"))
    pictures = []
    for options in ((), ("--fuse",), ("--fuse",)):
        assert call(*arguments, *options, "--force") == 0
        picture = Image.open(tmp_path / "images" / "image-0000.png")
        pictures.append(np.asarray(picture, dtype=np.int16))
    plain, fused, again = pictures
    assert np.abs(plain - fused).max() <= 2 and np.array_equal(fused, again)
    fails(*arguments, saying="give another --output, or --force")
