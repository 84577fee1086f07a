"""The commands that make pictures: several processes of torchrun share them out."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffcr.cli.inputs import (
    check_output,
    check_size,
    choose_guidance,
    open_bare_beside,
    open_pipeline,
    read_prompts,
)
from diffcr.cli.options import (
    BatchSize,
    Budget,
    Checkpoint,
    Dense,
    Guidance,
    Method,
    Model,
    Pixels,
    Seed,
    Steps,
)
from diffcr.cli.screens import evaluated_screen
from diffcr.errors import DiffCRError
from diffcr.ownership import own_directory

if TYPE_CHECKING:
    from diffcr.evaluation.options import EvaluationOptions, Subjects


def generate(
    prompts: Annotated[list[str] | None, typer.Argument(help="One image per prompt.")] = None,
    prompt_file: Annotated[
        Path | None, typer.Option("--prompts", help="A file with one prompt per line.")
    ] = None,
    model: Model = "",
    checkpoint: Checkpoint = "",
    dense: Dense = False,
    method: Method = "",
    budget: Budget = None,
    output: Annotated[Path, typer.Option(help="Directory of the images.")] = Path("images"),
    steps: Steps = 20,
    guidance_scale: Guidance = None,
    seed: Seed = 0,
    height: Pixels = None,
    width: Pixels = None,
    batch_size: BatchSize = 8,
    fuse: Annotated[
        bool,
        typer.Option(
            "--fuse",
            help="Add a checkpoint's LoRA to the weights that it updates: faster, and other last "
            "bits.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite images.")] = False,
) -> None:
    """Generate images with a compressed pipeline, or with `--dense` the bare one.

    Each image is written when it is made: the same command goes on with those that are missing.
    """
    texts = read_prompts(prompts or [], prompt_file)
    check_output(output)
    pipe = open_pipeline(model, checkpoint, dense, method)
    if budget is not None:
        from diffcr.binding.model import get_reuser

        get_reuser(pipe).set_budget(budget)
    check_size(pipe, height=height, width=width)
    from diffcr.evaluation.generate import Generation
    from diffcr.evaluation.picture_files import (
        PictureFiles,
        begin_pictures,
        generate_pictures,
        identify_generation,
    )

    scale = choose_guidance(guidance_scale, model)
    generation = Generation(seed, steps, scale, height, width, batch_size)
    files = PictureFiles(output, len(texts))
    state = _processes()
    identity: dict[str, Any] = {}
    if state.is_main_process:
        # Of the weights as they were loaded.
        identity = identify_generation(pipe, texts, generation, budget=budget, fuse=fuse or None)
    if fuse:
        from diffcr.binding.fusing import fuse_lora

        fuse_lora(pipe)
    with own_directory(output, first=state.is_main_process):
        if state.is_main_process:
            begin_pictures(files, identity, anew=force)
        state.wait_for_everyone()
        process, processes = state.process_index, state.num_processes
        generate_pictures(pipe, texts, files, generation, process, processes, "generating")
        state.wait_for_everyone()
    if state.is_main_process:
        last = f" ... {files.path(len(files) - 1).name}" * (len(files) > 1)
        typer.echo(f"{len(files)} images: {files.path(0)}{last}")


def evaluate(
    model: Model = "",
    checkpoint: Checkpoint = "",
    dense: Dense = False,
    method: Method = "",
    output: Annotated[Path, typer.Option(help="Report directory.")] = Path("runs/eval"),
    captions: Annotated[
        int, typer.Option(help="Test captions of scenes.", min=1, max=100_000)
    ] = 256,
    prompt_file: Annotated[
        Path | None, typer.Option("--prompts", help="Prompts of your own instead of scenes.")
    ] = None,
    steps: Steps = 20,
    guidance_scale: Guidance = None,
    seed: Seed = 0,
    pairs: Annotated[
        int,
        typer.Option(
            help="Timed pairs of forwards, and two fifths as many of whole runs; more where they "
            "scatter. 0 times nothing.",
            min=0,
            max=1000,
        ),
    ] = 15,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a report.")] = False,
) -> None:
    """Measure a pipeline, dense and compressed side by side, and write a report.

    Its images are in `generated/`, where the same command goes on with those that are missing.
    """
    texts = read_prompts([], prompt_file) if prompt_file else []
    check_output(output)
    from diffcr.report.report import RECORD

    if (output / RECORD).exists() and not force:
        raise DiffCRError(f"{output} holds a report: give another --output, or --force")
    pipe = open_pipeline(model, checkpoint, dense, method)
    from diffcr.evaluation.evaluate import generate_all
    from diffcr.evaluation.options import EvaluationOptions, Subjects
    from diffcr.scenes import ScenesDataset

    options = EvaluationOptions(
        seed,
        steps,
        choose_guidance(guidance_scale, model),
        denoiser_repeats=pairs,
        pipeline_repeats=-(-2 * pairs // 5),
    )
    bare = open_bare_beside(pipe, model)
    scenes = [] if texts else list(ScenesDataset("test", size=captions))
    subjects = Subjects(texts) if texts else Subjects.of_scenes(scenes)
    state = _processes()
    folders = ("generated/dense", "generated/compressed")
    with own_directory(output, folders, state.is_main_process):
        subjects = generate_all(pipe, subjects, options, output / "generated", state, bare, force)
        if state.is_main_process:
            _report(pipe, subjects, options, bare, output)


def _report(
    pipe: Any, subjects: Subjects, options: EvaluationOptions, bare: Any | None, output: Path
) -> None:
    """Measure what one process measures, and write the report."""
    from dataclasses import replace

    from rich.console import Console

    from diffcr.evaluation.evaluate import evaluate as measure
    from diffcr.hosts.loading import text_tokens
    from diffcr.pretrained import judge_path
    from diffcr.report.report import write_report
    from diffcr.report.screen import show_screen
    from diffcr.scenes import ScenesDataset
    from diffcr.scenes.judge import load_judge
    from diffcr.training.data.encoding import encode_dataset

    judge = None
    if subjects.scenes:
        test = ScenesDataset("test", size=len(subjects.scenes))
        held_out = encode_dataset(pipe, test, output / "encoded", text_tokens(pipe))
        subjects, judge = replace(subjects, held_out=held_out), load_judge(judge_path())
    record = measure(pipe, subjects, options, judge, bare).save(output)
    written = write_report(record, output)
    show_screen(evaluated_screen(record, written), Console())


def _processes() -> Any:
    """accelerate's state of this process among those of torchrun, of one without it."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=7))
