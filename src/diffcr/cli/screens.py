"""What commands say in their end."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffcr.distillation.distill import Distillation
    from diffcr.records.record import Record
    from diffcr.report.report import Report
    from diffcr.report.screen import Screen
    from diffcr.training.recipe import TrainingRecipe
    from diffcr.training.run_directory import TrainingResult


def trained_screen(recipe: TrainingRecipe, result: TrainingResult) -> Screen:
    """After `diffcr train`."""
    from diffcr.report.screen import Screen

    ratio, final = result.mean_compression_ratio, result.directory / "final"
    target = getattr(recipe.method, "target_compression_ratio", None)
    gained = []
    if ratio is not None:
        aimed = "" if target is None else f" (target {target:.1%})"
        gained = [f"tokens: {ratio:.1%} bypass a layer on average{aimed}"]
    checkpoint = _options(final, recipe.model)
    uses = [f'diffcr generate {checkpoint} "a prompt"', f"diffcr eval {checkpoint}"]
    if recipe.inpainting is not None:
        uses = [
            f'diffcr inpaint {checkpoint} --image photo.png --mask mask.png --prompt "a prompt"'
        ]
    return Screen(
        [
            f"{result.steps} steps of {recipe.name} in {result.seconds:.0f} s",
            f"checkpoint: {final}",
        ],
        gained,
        [*uses, f"diffcr push {quote(str(final))} user/name"],
    )


def calibrated_screen(record: Record, written: Report, checkpoint: Path, model: str) -> Screen:
    """After `diffcr calibrate`."""
    from diffcr.report.screen import Screen, gains

    calibration = record.results["calibration"]
    tried = f"{len(calibration['trials'])} settings tried, the best one kept"
    return Screen(
        [tried, f"checkpoint: {checkpoint}"],
        gains(record),
        [
            f'diffcr generate {_options(checkpoint, model)} "a prompt"',
            f"pictures and all settings: {written.page}",
        ],
    )


def distilled_screen(done: Distillation, checkpoint: Path, model: str) -> Screen:
    """After `diffcr distill`."""
    from diffcr.report.screen import Screen

    gained = []
    if done.first_error is not None and done.last_error is not None:
        gained = [
            f"error beside the dense model's steps: {done.first_error:.4g} in the first "
            f"steps, {done.last_error:.4g} in the last"
        ]
    options = _options(checkpoint, model)
    return Screen(
        [f"{done.steps} steps in {done.seconds:.0f} s", f"checkpoint: {checkpoint}"],
        gained,
        [
            f'diffcr generate {options} "a prompt"',
            f"diffcr eval {options}",
            "in Python, after diffcr.load: diffcr.fuse_lora(pipe), and the LoRA takes no time",
        ],
    )


def evaluated_screen(record: Record, written: Report) -> Screen:
    """After `diffcr eval`."""
    from diffcr.report.screen import Screen, gains

    models = [name for name in record.results["images"] if name != "prompts"]
    return Screen(
        [f"{' and '.join(models)} measured", f"record: {written.record}"],
        gains(record),
        [f"tables, figures, pictures: {written.page}", "diffcr report DIRECTORY compares records"],
    )


def _options(checkpoint: Path, model: str) -> str:
    named = f" --model {quote(model)}" if model else ""
    return f"--checkpoint {quote(str(checkpoint))}{named}"
