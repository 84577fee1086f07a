"""The demo that trains, end to end on a tiny pipeline."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

import diffcr
from diffcr.demo.shared import check_demo
from diffcr.demo.training import DemoPlan, demo_recipe, demonstrate, run_demo
from diffcr.errors import DiffCRError
from diffcr.evaluation.options import EvaluationOptions
from diffcr.hosts import find_transformer
from diffcr.records.record import read_record
from diffcr.scenes.judge import JudgeConfig, SceneJudge
from tests.pipelines import tiny_pixart_pipeline

PLAN = DemoPlan(
    steps=5,
    batch_size=2,
    lora_rank=2,
    training_scenes=4,
    held_out_scenes=2,
    prompts=2,
    resolution=32,
    evaluation=EvaluationOptions(
        num_inference_steps=2,
        held_out_samples=2,
        latency_batch_size=1,
        denoiser_repeats=1,
        pipeline_repeats=1,
        map_timesteps=(900, 100),
    ),
)


def test_a_pipeline_is_trained_measured_and_reported(tmp_path: Path) -> None:
    pipe = tiny_pixart_pipeline()
    text = io.StringIO()
    console = Console(file=text, width=120)
    judge = SceneJudge(JudgeConfig(resolution=32)).eval()
    result = demonstrate(pipe, judge, tmp_path / "demo", PLAN, console)

    results = read_record(result.report.record).results
    assert results["compression"]["learned_mean"] > 0
    trajectory = results["trajectory"]
    assert trajectory["step"] == [1, 2, 3, 4, 5]
    assert len(trajectory["per_region"]) == 4
    assert trajectory["mean"][-1] > trajectory["mean"][0]
    assert {path.name for path in result.report.figures} == {
        "compression.png",
        "trajectory.png",
        "router_maps.png",
        "router_auc.png",
        "images.png",
    }
    printed = text.getvalue()
    _, done, screen = printed.rpartition("Done\n")
    assert done and len(screen.splitlines()) < 25
    for words in ("5 steps", "bypass", "operations", "time, denoiser", "caption accuracy", "Next"):
        assert words in screen

    other = tiny_pixart_pipeline()
    loaded = diffcr.load(other, result.checkpoint)
    assert loaded.inference_bins() == find_transformer(pipe).diffcr.inference_bins()


def test_the_recipe_is_diffcr_lt_with_sampled_branches() -> None:
    recipe = demo_recipe(DemoPlan())
    assert recipe.method.target_compression_ratio == 0.3  # type: ignore[union-attr]
    assert recipe.timestep_regions == 4
    assert recipe.method.branching == "sampled"  # type: ignore[union-attr]
    assert recipe.finetune == "lora"


def test_bad_input_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(DiffCRError, match="steps is 0"):
        run_demo(tmp_path, steps=0)
    (tmp_path / "training").mkdir()
    check_demo(tmp_path)
    (tmp_path / "report.html").touch()
    with pytest.raises(DiffCRError, match="another demo"):
        check_demo(tmp_path)
