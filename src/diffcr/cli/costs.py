"""The commands that count and time what methods cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffcr.cli.options import Checkpoint, Pixels
from diffcr.cli.quiet import hide_loading_bars


def flops(
    model: Annotated[
        str,
        typer.Option(
            help="A published model, such as flux-dev or pixart-sigma-xl, or a pipeline directory."
        ),
    ] = "",
    resolution: Pixels = None,
    batch_size: Annotated[int, typer.Option(help="Samples of a forward.", min=1, max=65536)] = 1,
    text_tokens: Annotated[
        int, typer.Option(help="Tokens of a prompt; the paper's 120.", min=1, max=8192)
    ] = 120,
    method: Annotated[
        str,
        typer.Option(
            help="NAME[:COMPRESSION_RATIO[:PLACEMENT]]: dense, mod:0.2, diffcr:0.2 (the same ratio "
            "in every layer), tome:0.3:block, at-edm:0.3, pruning:0.3, reuse:0.5; the "
            "checkpoint's if none."
        ),
    ] = "",
    compression_ratio: Annotated[
        float | None, typer.Option(help="Of a method that is named without.", min=0, max=0.9)
    ] = None,
    placement: Annotated[
        str | None, typer.Option(help="Of tome: attention, mlp, attention-mlp or block.")
    ] = None,
    checkpoint: Checkpoint = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, without rounding.")] = False,
) -> None:
    """Count the operations of a method, from configurations alone: no weights are needed."""
    import json

    import torch
    from rich.console import Console

    from diffcr.cli.inputs import read_method
    from diffcr.cost.counting import count_contender
    from diffcr.hosts.input_size import InputSize
    from diffcr.hosts.published import (
        is_published,
        make_transformer,
        published_input,
        transformer_config,
    )
    from diffcr.pretrained import default_pipeline_path
    from diffcr.report.console import show_tables
    from diffcr.report.flops import flop_tables

    config = transformer_config(model or str(default_pipeline_path()), resolution)
    chosen = read_method(method, compression_ratio, placement, checkpoint, model)
    with torch.device("meta"):
        transformer = make_transformer(config)
    size = InputSize(text_tokens)
    if is_published(model):
        size = published_input(model, resolution, text_tokens)
    count = count_contender(chosen, transformer, size, batch_size)
    if as_json:
        described = {"model": model or "scenes", "method": chosen.name, **count.to_json_dict()}
        typer.echo(json.dumps(described))
    else:
        show_tables(flop_tables(chosen.name, count), Console())


def bench(
    model: Annotated[
        str,
        typer.Option(
            help="flux-dev, sd35-medium, qwen-image, z-image, wan-1.3b, pixart-sigma-xl or "
            "pixart-alpha-xl, with random weights, or a pipeline directory; the embedded default "
            "if not given."
        ),
    ] = "",
    resolution: Pixels = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME[:COMPRESSION_RATIO[:PLACEMENT]], repeatable: mod:0.2, diffcr:0.3 (random "
            "routers, the cost of mod:0.3), tome:0.3:block, at-edm:0.3, pruning:0.3, "
            "fewer-layers:0.3 (a control). dense is always there."
        ),
    ] = None,
    checkpoint: Checkpoint = "",
    batch_size: Annotated[
        list[int] | None,
        typer.Option(help="Samples of a forward, repeatable; 1.", min=1, max=65536),
    ] = None,
    largest_batch: Annotated[
        bool,
        typer.Option("--largest-batch", help="Also the largest power of 2 that fits the GPU."),
    ] = False,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    compiled: Annotated[
        bool, typer.Option("--compile", help="Time every method compiled, too.")
    ] = False,
    cuda_graph: Annotated[
        bool, typer.Option("--cuda-graph", help="Time every method from a CUDA graph, too.")
    ] = False,
    device: Annotated[
        str, typer.Option(help="cpu or cuda; a GPU where there is one by default.")
    ] = "",
    tiny: Annotated[
        bool, typer.Option("--tiny", help="A published model with few and narrow layers, to try.")
    ] = False,
    pairs: Annotated[
        int, typer.Option(help="Samples of each method, in turns.", min=1, max=10_000)
    ] = 15,
    output: Annotated[Path | None, typer.Option(help="File of the record.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a record.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Time a forward of methods and the dense model in turns, and watch its memory."""
    from diffcr.cli.inputs import check_file, read_contenders

    if output is not None:
        check_file(output, force)
    contenders = read_contenders(method or [], checkpoint, model)
    from diffcr.cli.records import write_and_show
    from diffcr.evaluation.timing.bench import BenchOptions
    from diffcr.evaluation.timing.bench import bench as measure
    from diffcr.evaluation.timing.subject import open_subject

    hide_loading_bars()
    subject = open_subject(model, resolution, dtype, device, tiny)
    options = BenchOptions(
        tuple(batch_size or [1]),
        pairs,
        compiled=compiled,
        cuda_graph=cuda_graph,
        largest_batch=largest_batch,
    )
    write_and_show(measure(subject, contenders, options), output, as_json)
