"""A record's tables and notes in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as RichTable

from diffcr.records.record import Record
from diffcr.report.sections import make_tables
from diffcr.report.tables import Table


def show(record: Record, console: Console) -> None:
    """Print the record's tables and notes."""
    show_tables(make_tables(record), console)
    for note in record.results.get("notes", []):
        console.print(note, style="italic", highlight=False)


def show_tables(tables: Sequence[Table], console: Console) -> None:
    """Print tables with their notes."""
    for table in tables:
        console.print(_draw(table))
        console.print(f"{table.note}\n" if table.note else "", style="dim", highlight=False)


def _draw(table: Table) -> RichTable:
    # As wide as its title, which rich would wrap otherwise.
    drawn = RichTable(title=table.title, title_justify="left", min_width=len(table.title))
    for index, column in enumerate(table.columns):
        drawn.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    for row in table.rows:
        drawn.add_row(*row)
    return drawn
