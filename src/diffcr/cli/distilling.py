"""The command that trains what reuses."""

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
from diffcr.cli.options import Guidance, Model, Pixels
from diffcr.cli.screens import distilled_screen
from diffcr.errors import DiffCRError


def distill(
    checkpoint: Annotated[
        str, typer.Option(help="What `diffcr calibrate` wrote, directory or Hub id.")
    ],
    model: Model = "",
    prompt_file: Annotated[
        Path | None,
        typer.Option("--prompts", help="A file with one prompt per line; captions of scenes."),
    ] = None,
    budget: Annotated[
        list[float] | None,
        typer.Option(help="Share of a dense run to train for; again for several; as calibrated."),
    ] = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps.", min=1, max=10**9)] = 300,
    sampling_steps: Annotated[int, typer.Option(help="Denoising steps.", min=2, max=1000)] = 20,
    guidance_scale: Guidance = None,
    batch_size: Annotated[int, typer.Option(help="Prompts of a step.", min=1, max=1024)] = 8,
    lora_rank: Annotated[int, typer.Option(help="Of the LoRA.", min=1, max=4096)] = 32,
    learning_rate: Annotated[float, typer.Option(help="At its highest.", min=0, max=1)] = 5e-4,
    mixed_precision: Annotated[str, typer.Option(help="no or bf16.")] = "no",
    offload_activations: Annotated[
        bool,
        typer.Option("--offload-activations", help="Keep what backward needs on the CPU."),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of all draws.", min=0, max=2**62)] = 0,
    height: Pixels = None,
    width: Pixels = None,
    frames: Annotated[int | None, typer.Option(help="Of a video.", min=1, max=4096)] = None,
    output: Annotated[Path, typer.Option(help="Directory of the run.")] = Path("runs/distilled"),
) -> None:
    """Train a LoRA that makes up for reused steps, from prompts alone."""
    check_output(output)
    if model and prompt_file is None:
        raise DiffCRError("--model needs --prompts FILE: prompts like those that it is for")
    texts = read_prompts([], prompt_file) if prompt_file else scene_captions("train", 4096)
    pipe = open_pipeline(model, checkpoint, dense=False)
    check_size(pipe, height=height, width=width)
    from rich.console import Console

    from diffcr.checkpoint.saving import require_replaceable, save
    from diffcr.distillation.distill import distill as train
    from diffcr.distillation.settings import DistillationSettings
    from diffcr.hosts.sampling import OutputSize
    from diffcr.report.screen import show_screen

    final = output / "checkpoint"
    require_replaceable(final)
    precision: Any = mixed_precision
    settings = DistillationSettings(
        steps=steps,
        batch_size=batch_size,
        budgets=tuple(budget or ()),
        num_inference_steps=sampling_steps,
        guidance_scale=choose_guidance(guidance_scale, model),
        lora_rank=lora_rank,
        learning_rate=learning_rate,
        mixed_precision=precision,
        offload_activations=offload_activations,
        seed=seed,
    )
    done = train(pipe, texts, output, settings, OutputSize(height, width, frames))
    show_screen(distilled_screen(done, save(pipe, final), model), Console())
