"""The command that encodes pictures and captions before training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffcr.cli.inputs import check_output
from diffcr.cli.options import Model
from diffcr.cli.quiet import hide_loading_bars


def encode(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder with metadata.jsonl, a tar or a folder of tars (webdataset), "
            "datasets:NAME[:SPLIT], or 'scenes'."
        ),
    ],
    output: Annotated[Path, typer.Option(help="Directory of the shards.")],
    model: Model = "",
    resolution: Annotated[
        int | None,
        typer.Option(help="Side in pixels; the pipeline's own by default.", min=8, max=8192),
    ] = None,
    largest_ratio: Annotated[
        float,
        typer.Option(
            help="Longer to shorter side that pictures keep, at the area of the square; 1 crops "
            "all to squares.",
            min=1,
            max=4,
        ),
    ] = 1.0,
    max_sequence_length: Annotated[
        int | None,
        typer.Option(help="Tokens of a caption; the pipeline's own by default.", min=1, max=8192),
    ] = None,
    shard_items: Annotated[
        int | None,
        typer.Option(help="Pictures of a shard; about 256 MiB by default.", min=1, max=10**9),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Pictures per call.", min=1, max=65536)] = 32,
) -> None:
    """Encode pictures and captions into shards, once; the same command goes on with the rest."""
    check_output(output)
    from accelerate import PartialState

    from diffcr.training.encode_job import EncodingRequest, run_encoding

    hide_loading_bars()

    request = EncodingRequest(
        source, model, resolution, largest_ratio, max_sequence_length, shard_items, batch_size
    )
    data = run_encoding(request, output)
    if PartialState().is_main_process:
        passed_over = f", {data.skipped} passed over: {output / 'skipped.jsonl'}"
        typer.echo(
            f"{len(data)} pictures in {len(data.shards)} shards: {output}"
            + (passed_over if data.skipped else "")
        )
