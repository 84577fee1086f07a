"""The demo end to end on a tiny pipeline."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import diffcr
from diffcr.demo.reuse import ReusePlan, demonstrate
from diffcr.errors import DiffCRError
from diffcr.evaluation.options import EvaluationOptions
from diffcr.hosts import find_transformer
from diffcr.records.record import read_record
from diffcr.scenes.judge import JudgeConfig, SceneJudge
from tests.pipelines import tiny_pixart_pipeline

PLAN = ReusePlan(
    calibration_prompts=2,
    prompts=2,
    resolution=32,
    evaluation=EvaluationOptions(
        num_inference_steps=6,
        latency_batch_size=1,
        denoiser_repeats=1,
        pipeline_repeats=1,
        map_timesteps=(),
    ),
)


def test_a_pipeline_is_calibrated_measured_and_reported(tmp_path: Path) -> None:
    pipe, text = tiny_pixart_pipeline(), io.StringIO()
    judge = SceneJudge(JudgeConfig(resolution=32)).eval()
    result = demonstrate(pipe, judge, tmp_path, PLAN, Console(file=text, width=120))

    results = read_record(result.report.record).results
    assert results["calibration"]["chosen"]["mean_compression_ratio"] == pytest.approx(0.5, abs=0.1)
    assert results["flops"]["compressed"]["total"] < 0.7 * results["flops"]["dense"]["total"]
    assert {"dense", "compressed"} <= results["images"].keys()
    assert [path.name for path in result.report.figures] == ["images.png"]
    _, done, screen = text.getvalue().rpartition("Done\n")
    assert done and len(screen.splitlines()) < 25
    for words in ("without training", "operations", "time, pipeline", "caption accuracy", "Next"):
        assert words in screen

    other = tiny_pixart_pipeline()
    assert diffcr.load(other, result.checkpoint).config == find_transformer(pipe).diffcr.config
    with pytest.raises(DiffCRError, match="another demo"):
        demonstrate(tiny_pixart_pipeline(), judge, tmp_path, PLAN)


def test_one_that_was_interrupted_begins_anew(tmp_path: Path) -> None:
    judge = SceneJudge(JudgeConfig(resolution=32)).eval()
    demonstrate(tiny_pixart_pipeline(), judge, tmp_path, PLAN, Console(file=io.StringIO()))
    (tmp_path / "report.html").unlink()
    again = demonstrate(tiny_pixart_pipeline(), judge, tmp_path, PLAN, Console(file=io.StringIO()))
    assert again.report.page.exists()


def test_steps_without_training_are_refused_in_a_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "diffcr", "demo", "--steps", "5", "--output", str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 2
    assert "--steps is 5" in finished.stderr and "--train" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1
