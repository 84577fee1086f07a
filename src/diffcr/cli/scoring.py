"""The command that scores images on published networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffcr.cli.inputs import check_file, read_prompts
from diffcr.cli.options import BatchSize
from diffcr.cli.records import write_and_show
from diffcr.errors import DiffCRError, SettingsError

_SPELLINGS = {
    "clip": "--clip MODEL",
    "hps": "--hps MODEL",
    "hps_version": "--hps-version",
    "inception": "--inception FILE",
    "kid_subset_size": "--kid-subset-size",
    "prompts": "--prompts FILE",
    "reference": "--reference DIR",
}


def score(
    images: Annotated[Path, typer.Argument(help="Directory of generated PNG files.")],
    metric: Annotated[
        list[str] | None,
        typer.Option(help="fid, kid, fd-dinov2, cmmd, clip or hps; may be repeated."),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Directory of real pictures, PNG or JPEG.")
    ] = None,
    prompt_file: Annotated[
        Path | None,
        typer.Option("--prompts", help="A line per image, in the order of the images' names."),
    ] = None,
    inception: Annotated[
        Path | None, typer.Option(help="inception-2015-12-05.pt, a program: from its source only.")
    ] = None,
    clip: Annotated[str, typer.Option(help="CLIP model of the CLIP score.")] = "",
    dinov2: Annotated[str, typer.Option(help="DINOv2 model, ViT-L/14 by default.")] = "",
    cmmd: Annotated[str, typer.Option(help="CLIP of CMMD, ViT-L/14-336 by default.")] = "",
    hps: Annotated[str, typer.Option(help="HPSv2 converted to transformers.")] = "",
    hps_version: Annotated[str, typer.Option(help="v2.0 or v2.1.")] = "",
    kid_subsets: Annotated[int, typer.Option(help="How many are drawn.", min=1, max=100_000)] = 100,
    kid_subset_size: Annotated[int, typer.Option(help="Images in each.", min=2)] = 1000,
    seed: Annotated[int, typer.Option(help="Of KID's subsets.", min=0, max=2**62)] = 0,
    batch_size: BatchSize = 32,
    output: Annotated[Path | None, typer.Option(help="File of the record.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a record.")] = False,
) -> None:
    """Score generated images, with weights on this machine: docs/metrics.md says which."""
    from diffcr.evaluation.metrics.options import ScoreOptions

    models = {"dinov2": dinov2, "cmmd": cmmd, "clip": clip, "hps": hps}
    try:
        options = ScoreOptions(
            metrics=tuple(metric or ()),
            inception=inception,
            hps_version=hps_version,
            kid_subsets=kid_subsets,
            kid_subset_size=kid_subset_size,
            seed=seed,
            batch_size=batch_size,
            **{name: given for name, given in models.items() if given},
        )
        prompts = read_prompts([], prompt_file) if prompt_file else []
        if output is not None:
            check_file(output, force)
        from diffcr.evaluation.metrics.scoring import score_images

        record = score_images(images, options, reference, prompts, progress=not as_json)
    except SettingsError as error:
        raise DiffCRError(error.spelled(_SPELLINGS)) from error
    write_and_show(record, output, as_json)
