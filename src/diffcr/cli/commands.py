"""The commands. Nothing heavy is imported before one runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffcr.cli.calibrating import calibrate
from diffcr.cli.costs import bench, flops
from diffcr.cli.encoding import encode
from diffcr.cli.inpainting import inpaint
from diffcr.cli.inputs import (
    check_file,
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
from diffcr.cli.scoring import score
from diffcr.errors import DiffCRError

if TYPE_CHECKING:
    from diffcr.training.recipe import TrainingRecipe

app = typer.Typer(
    help="Learned token compression for diffusion transformers.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _say_version(asked: bool) -> None:
    if asked:
        from diffcr import __version__

        typer.echo(f"diffcr {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", help="Say it.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a shipped recipe.")],
    model: Model = "",
    checkpoint: Annotated[
        str, typer.Option(help="DiffCR checkpoint to go on from, directory or Hub id.")
    ] = "",
    data: Annotated[
        str, typer.Option(help="'scenes', a folder with metadata.jsonl, or what encode wrote.")
    ] = "",
    output: Annotated[Path | None, typer.Option(help="Directory of the run.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.", min=1, max=10**9)] = None,
    resume: Annotated[
        bool,
        typer.Option(help="Go on from the last checkpoint there, or set it aside and start anew."),
    ] = True,
) -> None:
    """Fine-tune a pipeline by a recipe."""
    from dataclasses import replace

    from diffcr.training.recipe import find_recipe, load_recipe

    chosen: TrainingRecipe = load_recipe(find_recipe(recipe)).with_changes(
        steps=steps, model=model or None, checkpoint=checkpoint or None
    )
    if data:
        chosen = chosen.with_changes(data=replace(chosen.data, source=data, size=None))
    directory = output or Path("runs") / chosen.name
    check_output(directory)
    from diffcr.training.job import run_recipe

    result = run_recipe(chosen, directory, resume)
    ratio = result.mean_compression_ratio
    target = getattr(chosen.method, "target_compression_ratio", None)
    reached = "" if ratio is None else f", mean compression ratio {ratio:.1%} of {target:.1%}"
    typer.echo(f"{result.steps} steps in {result.seconds:.0f} s{reached}: {directory / 'final'}")


@app.command()
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
    force: Annotated[bool, typer.Option("--force", help="Overwrite images.")] = False,
) -> None:
    """Generate images with a compressed pipeline, or with `--dense` the bare one."""
    texts = read_prompts(prompts or [], prompt_file)
    check_output(output)
    present = [p for i in range(len(texts)) if (p := output / f"image-{i:04d}.png").exists()]
    if present and not force:
        raise DiffCRError(f"{present[0]} exists: give another --output, or --force to overwrite")
    pipe = open_pipeline(model, checkpoint, dense, method)
    if budget is not None:
        from diffcr.binding.model import get_reuser

        get_reuser(pipe).set_budget(budget)
    check_size(pipe, height=height, width=width)
    from diffcr.evaluation.generate import generate_images, save_images

    output.mkdir(parents=True, exist_ok=True)
    scale = choose_guidance(guidance_scale, model)
    images = generate_images(
        pipe, texts, seed, steps, scale, height, width, batch_size, "generating"
    )
    paths = save_images(images, output)
    typer.echo(f"{len(paths)} images: {paths[0]}" + (f" ... {paths[-1].name}" * (len(paths) > 1)))


@app.command("eval")
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
    force: Annotated[bool, typer.Option("--force", help="Overwrite a report.")] = False,
) -> None:
    """Measure a pipeline, dense and compressed side by side, and write a report."""
    texts = read_prompts([], prompt_file) if prompt_file else []
    check_output(output)
    from diffcr.report.report import RECORD, write_report

    if (output / RECORD).exists() and not force:
        raise DiffCRError(f"{output} holds a report: give another --output, or --force")
    pipe = open_pipeline(model, checkpoint, dense, method)
    from diffcr.evaluation.evaluate import evaluate as measure
    from diffcr.evaluation.options import EvaluationOptions, Subjects
    from diffcr.hosts.loading import text_tokens
    from diffcr.pretrained import judge_path
    from diffcr.scenes import ScenesDataset
    from diffcr.scenes.judge import load_judge
    from diffcr.training.data.encoding import encode_dataset

    options = EvaluationOptions(seed, steps, choose_guidance(guidance_scale, model))
    bare = open_bare_beside(pipe, model)
    if texts:
        subjects, judge = Subjects(texts), None
    else:
        test = ScenesDataset("test", size=captions)
        held_out = encode_dataset(pipe, test, output / "encoded", text_tokens(pipe))
        subjects, judge = Subjects.of_scenes(list(test), held_out), load_judge(judge_path())
    from rich.console import Console

    from diffcr.report.console import show

    record = measure(pipe, subjects, options, judge, bare).save(output)
    written = write_report(record, output)
    show(record, Console())
    typer.echo(f"report: {written.page}, record: {written.record}")


@app.command()
def report(
    records: Annotated[Path, typer.Argument(help="Directory of records.")],
    output: Annotated[Path, typer.Option(help="The page.")] = Path("report.html"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the page.")] = False,
) -> None:
    """Show a directory of records as one page: tables, figures, and where they are from."""
    check_file(output, force)
    from diffcr.report.overview import write_overview

    typer.echo(f"report: {write_overview(records, output)}")


for command in (encode, calibrate, inpaint, score, flops, bench):
    app.command()(command)


@app.command()
def models(
    name: Annotated[
        str | None, typer.Argument(help="A transformer class: what works on it, and why not more.")
    ] = None,
) -> None:
    """List the model classes that can be compressed with their methods, and what is embedded."""
    from diffcr.hosts import families
    from diffcr.methods.coverage import CONFIGURATIONS, method_refusals
    from diffcr.pretrained import (
        default_checkpoint_path,
        default_inpainting_path,
        default_pipeline_path,
    )

    known = families()
    if name is not None:
        if name not in known:
            raise DiffCRError(f"no model class is called {name!r}: `diffcr models` lists them")
        refusals = method_refusals(known[name])
        for method in CONFIGURATIONS:
            typer.echo(f"{method}: {refusals.get(method, 'works')}")
        return
    for model, family in known.items():
        refusals = method_refusals(family)
        working = [method for method in CONFIGURATIONS if method not in refusals]
        typer.echo(f"{model}: {', '.join(working)}")
    for name, find in (
        ("pipeline", default_pipeline_path),
        ("checkpoint", default_checkpoint_path),
        ("inpainting pipeline", default_inpainting_path),
    ):
        try:
            typer.echo(f"embedded {name}: {find()}")
        except DiffCRError as error:
            typer.echo(f"embedded {name}: {error}")


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Report directory.")] = Path("runs/demo"),
    steps: Annotated[int | None, typer.Option(help="Fine-tuning steps.", min=1, max=10**9)] = None,
) -> None:
    """Fine-tune the embedded default for a short time, and show what it gives."""
    check_output(output)
    from diffcr.demo import run_demo

    run_demo(output, steps)
