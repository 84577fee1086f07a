"""The commands. Nothing heavy is imported before one runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffcr.cli.calibrating import calibrate
from diffcr.cli.costs import bench, flops
from diffcr.cli.distilling import distill
from diffcr.cli.encoding import encode
from diffcr.cli.generating import evaluate, generate
from diffcr.cli.inpainting import inpaint
from diffcr.cli.inputs import check_file, check_output
from diffcr.cli.options import Model
from diffcr.cli.pushing import push
from diffcr.cli.quiet import hide_loading_bars
from diffcr.cli.scoring import score
from diffcr.cli.screens import trained_screen
from diffcr.cli.studio import studio
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
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Print the memory that each device needs, and stop.")
    ] = False,
    processes: Annotated[
        int, typer.Option(help="With --estimate: devices that the run is split over.", min=1)
    ] = 1,
) -> None:
    """Fine-tune a pipeline by a recipe."""
    from dataclasses import replace

    from diffcr.training.recipe import find_recipe, load_recipe

    chosen: TrainingRecipe = load_recipe(find_recipe(recipe)).with_changes(
        steps=steps, model=model or None, checkpoint=checkpoint or None
    )
    if data:
        chosen = chosen.with_changes(data=replace(chosen.data, source=data, size=None))
    if estimate:
        from diffcr.training.estimate import estimate_memory

        typer.echo("\n".join(estimate_memory(chosen, processes).lines()))
        return
    directory = output or Path("runs") / chosen.name
    check_output(directory)
    from rich.console import Console

    from diffcr.report.screen import show_screen
    from diffcr.training.job import run_recipe

    hide_loading_bars()
    result = run_recipe(chosen, directory, resume)
    if os.environ.get("RANK", "0") == "0":
        show_screen(trained_screen(chosen, result), Console())


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


app.command()(generate)
app.command("eval")(evaluate)
for command in (encode, calibrate, distill, inpaint, score, flops, bench, studio, push):
    app.command()(command)


@app.command()
def models(
    name: Annotated[
        str | None, typer.Argument(help="A transformer class: what works on it, and why not more.")
    ] = None,
) -> None:
    """List the model classes that can be compressed with their methods, and what is embedded."""
    from diffcr.hosts import families
    from diffcr.hosts.refused import REFUSED_CLASSES
    from diffcr.methods.coverage import CONFIGURATIONS, method_refusals
    from diffcr.pretrained import (
        default_checkpoint_path,
        default_inpainting_path,
        default_pipeline_path,
    )

    known = families()
    if name is not None:
        if name in REFUSED_CLASSES:
            raise DiffCRError(f"{name} is not supported: {REFUSED_CLASSES[name]}")
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
    train: Annotated[
        bool, typer.Option("--train", help="Fine-tune the paper's routers, for minutes.")
    ] = False,
    steps: Annotated[
        int | None, typer.Option(help="Fine-tuning steps of --train.", min=1, max=10**9)
    ] = None,
) -> None:
    """Halve the embedded pipeline's cost without training, and show what that gives."""
    if steps is not None and not train:
        raise DiffCRError(f"--steps is {steps}, and nothing is trained: give --train, too")
    check_output(output)
    hide_loading_bars()
    if train:
        from diffcr.demo.training import run_demo as run_training_demo

        run_training_demo(output, steps)
    else:
        from diffcr.demo.reuse import run_demo

        run_demo(output)
