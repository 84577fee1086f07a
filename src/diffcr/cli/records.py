"""What commands do with a record that they made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from diffcr.records.record import Record


def write_and_show(record: Record, output: Path | None, as_json: bool) -> None:
    """Write a record to a file, where one was given, and print it as JSON or as tables."""
    import json
    from dataclasses import asdict

    from rich.console import Console

    from diffcr.records.record import write_record
    from diffcr.report.console import show

    if output is not None:
        write_record(record, output)
    if as_json:
        typer.echo(json.dumps(asdict(record)))
    else:
        show(record, Console())
