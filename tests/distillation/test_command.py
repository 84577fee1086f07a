"""`diffcr distill`, from what `diffcr calibrate` wrote to a checkpoint and what to do next."""

from __future__ import annotations

from pathlib import Path

import pytest

import diffcr
from diffcr.cli.commands import app
from diffcr.errors import DiffCRError
from tests.pipelines import tiny_pixart_pipeline


def test_it_trains_saves_and_says_what_comes_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tiny_pixart_pipeline()
    pipe.save_pretrained(tmp_path / "model")
    diffcr.attach(pipe, diffcr.ReuseConfig(0.6, dense_above=0.95))
    diffcr.save(pipe, tmp_path / "calibrated")
    (tmp_path / "prompts.txt").write_text("a red circle\na blue square\n")
    output = tmp_path / "distilled"
    options = {
        "model": tmp_path / "model",
        "checkpoint": tmp_path / "calibrated",
        "prompts": tmp_path / "prompts.txt",
        "output": output,
        "steps": 2,
        "sampling-steps": 4,
        "batch-size": 2,
        "lora-rank": 2,
        "budget": 0.5,
    }
    given = ["distill", *(f"--{name}={value}" for name, value in options.items())]
    app(given, standalone_mode=False)
    printed = capsys.readouterr().out
    assert "2 steps" in printed and "diffcr generate --checkpoint" in printed
    other = tiny_pixart_pipeline()
    diffcr.load(other, output / "checkpoint")
    assert "reuse" in diffcr.summary(other)
    assert any(".lora_B." in name for name, _ in other.transformer.named_parameters())
    with pytest.raises(DiffCRError, match="a distillation with other settings"):
        app([*given, "--learning-rate", "0.1"], standalone_mode=False)
