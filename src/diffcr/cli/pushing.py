"""The command that shares a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def push(
    directory: Annotated[Path, typer.Argument(help="Checkpoint, or the directory of a run.")],
    repository: Annotated[str, typer.Argument(help="On the Hub: user/name.")],
    license_id: Annotated[
        str, typer.Option("--license", help="The Hub's name of a licence, such as apache-2.0.")
    ] = "",
    private: Annotated[
        bool, typer.Option("--private", help="A repository that is made is for you alone.")
    ] = False,
) -> None:
    """Upload a checkpoint to the Hub, for diffcr.load and --checkpoint."""
    from diffcr.checkpoint.pushing import push as upload

    page = upload(directory, repository, license_id or None, private)
    typer.echo(f'{page}\nuse it: diffcr.load(pipe, "{repository}"), or --checkpoint {repository}')
