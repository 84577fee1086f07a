"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[
    str, typer.Option(help="Pipeline directory or Hub id; the embedded default if not given.")
]
Checkpoint = Annotated[
    str, typer.Option(help="DiffCR checkpoint, directory or Hub id; the embedded one by default.")
]
Dense = Annotated[bool, typer.Option("--dense", help="The bare model, without a checkpoint.")]
Method = Annotated[
    str,
    typer.Option(
        help="Training-free, in place of a checkpoint: reuse:0.5, tome:0.3:block, at-edm:0.3; or a "
        "step cache, beside one, too: first-block-cache:0.12, taylorseer:3, pab:2, t-gate:0.5."
    ),
]
Budget = Annotated[
    float | None,
    typer.Option(
        help="Share of the dense model's tokens to spend on a run, of a checkpoint or method that "
        "reuses tokens."
    ),
]
Seed = Annotated[
    int, typer.Option(help="Of the first image; image i has seed + i.", min=0, max=2**62)
]
Steps = Annotated[int, typer.Option(help="Denoising steps.", min=1, max=1000)]
Pixels = Annotated[int | None, typer.Option(help="Of a side, in pixels.", min=8, max=8192)]
BatchSize = Annotated[int, typer.Option(help="Images per call.", min=1, max=4096)]
Guidance = Annotated[
    float | None,
    typer.Option(
        help="Classifier-free guidance; 1 is none. 4.5, or the embedded default's own scale."
    ),
]
