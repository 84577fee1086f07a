"""The command that shows a pipeline as a page in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffcr.cli.inputs import open_bare_beside, open_pipeline
from diffcr.cli.options import Checkpoint, Method, Model

_RECORDS = Path("benchmarks/results")


def studio(
    model: Model = "",
    checkpoint: Checkpoint = "",
    method: Method = "",
    inpainting: Annotated[
        str, typer.Option(help="Directory of a LazyInpaintPipeline; the embedded default if none.")
    ] = "",
    records: Annotated[
        Path | None, typer.Option(help=f"Records to compare; {_RECORDS} where it is.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; anyone who reaches it may use the page.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(help="The first free one from 7860 on.", min=1, max=65535)
    ] = None,
) -> None:
    """Show a pipeline as a page in the browser: generate, inpaint, look inside, compare."""
    from diffcr.hosts.loading import load_pipeline
    from diffcr.inpainting.opening import load_inpainting_pipeline
    from diffcr.studio import launch

    pipe = dense = None
    if checkpoint or method:
        pipe = open_pipeline(model, checkpoint, False, method)
        dense = open_bare_beside(pipe, model)
    elif model:
        pipe = load_pipeline(model)
    if records is None and _RECORDS.is_dir():
        records = _RECORDS
    launch(
        pipe,
        dense=dense,
        inpainting=load_inpainting_pipeline(inpainting) if inpainting else None,
        records=records,
        host=host,
        port=port,
    )
