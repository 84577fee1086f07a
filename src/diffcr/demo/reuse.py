"""`diffcr demo`: the embedded pipeline at half of its cost, without training, all measured."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from diffcr.checkpoint.saving import save
from diffcr.demo.shared import DemoResult, check_demo, open_embedded
from diffcr.evaluation.calibration import calibrate
from diffcr.evaluation.evaluate import evaluate
from diffcr.evaluation.options import EvaluationOptions, Subjects
from diffcr.hosts.sampling import OutputSize
from diffcr.pretrained import GUIDANCE_SCALE
from diffcr.report.report import write_report
from diffcr.report.screen import Screen, gains, show_screen
from diffcr.scenes import ScenesDataset
from diffcr.scenes.judge import SceneJudge

_TARGET = 0.5


@dataclass(frozen=True)
class ReusePlan:
    """How much the demo measures.

    Attributes:
        calibration_prompts: Validation captions that settings are found on.
        prompts: Test captions that images are generated from.
        resolution: Height and width of the pictures in pixels.
        evaluation: How much is measured; its size is the plan's.
    """

    calibration_prompts: int = 16
    prompts: int = 64
    resolution: int = 96
    evaluation: EvaluationOptions = field(
        default_factory=lambda: EvaluationOptions(
            guidance_scale=GUIDANCE_SCALE, latency_batch_size=4, map_timesteps=()
        )
    )


def run_demo(output_dir: str | Path) -> DemoResult:
    """Calibrate token reuse on the embedded pipeline and report what that gave.

    Args:
        output_dir: Of the report; made where it is missing.

    Raises:
        DiffCRError: The directory holds another demo, or the embedded weights are not in this
            installation.
    """
    check_demo(output_dir)
    console = Console()
    judge, pipe = open_embedded(console)
    return demonstrate(pipe, judge, output_dir, ReusePlan(), console)


def demonstrate(
    pipe: Any,
    judge: SceneJudge,
    output_dir: str | Path,
    plan: ReusePlan,
    console: Console | None = None,
) -> DemoResult:
    """The demo on any pipeline that paints scenes.

    Args:
        pipe: The bare pipeline; reuse stays attached to it.
        judge: For caption accuracy.
        output_dir: Of the report.
        plan: How much to do.
        console: Where to print to.

    Raises:
        DiffCRError: There is a report, or the pipeline cannot reuse what it computed.
    """
    check_demo(output_dir)
    console = console or Console()
    output, size, started = Path(output_dir), plan.resolution, time.perf_counter()
    options = replace(plan.evaluation, height=size, width=size)
    console.print(f"Finding which denoising steps can be reused, {_TARGET:.0%} of them.")
    validation = ScenesDataset("validation", size=plan.calibration_prompts, resolution=size)
    found = calibrate(
        pipe,
        [scene.caption for scene in validation],
        _TARGET,
        num_inference_steps=options.num_inference_steps,
        guidance_scale=options.guidance_scale,
        size=OutputSize(size, size),
    )
    checkpoint = save(pipe, output / "checkpoint")
    subjects = Subjects.of_scenes(list(ScenesDataset("test", size=plan.prompts, resolution=size)))
    measured = evaluate(pipe, subjects, options, judge).save(output, "demo")
    record = replace(measured, results={**measured.results, "calibration": found.to_json_dict()})
    report = write_report(record, output, "DiffCR demo")
    took = time.perf_counter() - started
    done = [
        "the embedded pipeline computes half of its steps, without training; measured beside the "
        f"dense one, {took / 60:.1f} minutes in all",
        f"checkpoint: {checkpoint}",
    ]
    next_steps = [
        f"tables, figures, pictures: {report.page}",
        f'diffcr generate --checkpoint {checkpoint} "a prompt"',
        "diffcr calibrate --model YOUR_PIPELINE --prompts FILE    (your model)",
        "diffcr demo --train    (the paper's method: routers that learn which tokens matter)",
    ]
    show_screen(Screen(done, gains(measured), next_steps), console)
    return DemoResult(record, report, checkpoint, took)
