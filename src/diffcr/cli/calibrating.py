"""The command that makes a pipeline cheaper without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from diffcr.cli.inputs import (
    check_output,
    check_size,
    choose_guidance,
    open_pipeline,
    read_prompts,
    scene_captions,
)
from diffcr.cli.options import BatchSize, Guidance, Model, Pixels, Seed, Steps
from diffcr.cli.screens import calibrated_screen
from diffcr.errors import DiffCRError

_SHOWN = 8


def calibrate(
    model: Model = "",
    prompt_file: Annotated[
        Path | None,
        typer.Option("--prompts", help="A file with one prompt per line; captions of scenes."),
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(help="Mean share of tokens that a run skips; 0.3.", min=0.01, max=0.9),
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option(help="In place of --target: how many times as fast, timed on this machine."),
    ] = None,
    granularity: Annotated[str, typer.Option(help="What is skipped: steps or tokens.")] = "steps",
    steps: Steps = 20,
    guidance_scale: Guidance = None,
    seed: Seed = 0,
    batch_size: BatchSize = 8,
    height: Pixels = None,
    width: Pixels = None,
    frames: Annotated[
        int | None,
        typer.Option(help="Of a video; the pictures shown have one.", min=1, max=4096),
    ] = None,
    output: Annotated[
        Path, typer.Option(help="Directory of the checkpoint, pictures and report.")
    ] = Path("runs/calibrated"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite a report.")] = False,
) -> None:
    """Make a pipeline skip tokens that changed little, without training."""
    if target is not None and speed is not None:
        raise DiffCRError(f"--target is {target} and --speed {speed}: give one of them")
    check_output(output)
    from diffcr.report.report import RECORD, write_report

    if (output / RECORD).exists() and not force:
        raise DiffCRError(f"{output} holds a report: give another --output, or --force")
    if model and prompt_file is None:
        raise DiffCRError("--model needs --prompts FILE: some prompts like those that it is for")
    texts = read_prompts([], prompt_file) if prompt_file else scene_captions("validation", 16)
    pipe = open_pipeline(model, "", dense=True)
    check_size(pipe, height=height, width=width)
    from diffcr.hosts.sampling import OutputSize, call_parameters

    if frames is not None and "num_frames" not in call_parameters(pipe):
        raise DiffCRError(f"--frames is {frames}, and this pipeline makes pictures: leave it out")
    from rich.console import Console

    from diffcr.binding.model import disabled
    from diffcr.checkpoint.saving import save
    from diffcr.evaluation.calibration import calibrate as find_settings
    from diffcr.evaluation.generate import generate_images, save_images
    from diffcr.evaluation.speed_target import target_for_speed
    from diffcr.records.record import make_record
    from diffcr.report.screen import show_screen

    scale = choose_guidance(guidance_scale, model)
    kind: Any = granularity
    size = OutputSize(height, width, frames)
    if speed is not None:
        target = target_for_speed(pipe, texts, speed, kind, steps, scale, batch_size, size)
        typer.echo(f"{speed:g} times as fast needs {target:.1%} of the tokens skipped here")
    target = 0.3 if target is None else target
    found = find_settings(pipe, texts, target, kind, steps, scale, seed, batch_size, size=size)
    checkpoint = save(pipe, output / "checkpoint")
    images: dict[str, list[str]] = {"prompts": texts[:_SHOWN]}
    for name in ("dense", "reuse"):
        options = (texts[:_SHOWN], seed, steps, scale, height, width)
        if name == "dense":
            with disabled(pipe):
                pictures = generate_images(pipe, *options)
        else:
            pictures = generate_images(pipe, *options)
        paths = save_images(pictures, output / "images", name)
        images[name] = [path.relative_to(output).as_posix() for path in paths]
    results = {"calibration": found.to_json_dict(), "images": images}
    configuration = {
        "method": found.chosen.config.to_json_dict(),
        "prompts": len(texts),
        "target_compression_ratio": target,
        **({} if speed is None else {"target_speed": speed}),
        "guidance_scale": scale,
        **{name: value for name, value in vars(size).items() if value is not None},
    }
    record = make_record("calibration", configuration, results, seeds={"images": seed})
    written = write_report(record, output, "Calibrated token reuse")
    show_screen(calibrated_screen(record, written, checkpoint, model), Console())
