"""A report directory: the record, its figures, and a page that shows both."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffcr.evaluation.records import Record, write_record
from diffcr.evaluation.tables import Table, make_tables
from diffcr.files import write_text
from diffcr.plotting.evaluation import FigureFile, plot_all

RECORD = "report.json"
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #1a1a1a; background: #fff; }
table { border-collapse: collapse; margin: .5rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .9rem .2rem 0; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; white-space: pre; }
.table { overflow-x: auto; }
img { max-width: 100%; height: auto; }
.note { color: #555; font-size: .9rem; margin-top: 0; }
"""


@dataclass(frozen=True)
class Report:
    """A report directory.

    Attributes:
        directory: All of it; may be moved, its links are relative.
        page: report.html.
        record: report.json.
        figures: PNG files.
    """

    directory: Path
    page: Path
    record: Path
    figures: tuple[Path, ...]


def write_report(record: Record, directory: str | Path, title: str = "DiffCR report") -> Report:
    """Write report.json, the figures and report.html.

    Args:
        record: Its picture paths are relative to `directory`, where the pictures are already.
        directory: Made where it is missing.
        title: Of the page.
    """
    folder = Path(directory)
    path = write_record(record, folder / RECORD)
    figures = plot_all(record, folder)
    page = folder / "report.html"
    write_text(page, _page(record, figures, folder, title))
    return Report(folder, page, path, tuple(figure.path for figure in figures))


def _page(record: Record, figures: Sequence[FigureFile], folder: Path, title: str) -> str:
    parts = [f"<h1>{html.escape(title)}</h1>"]
    parts += [f"<p>{html.escape(note)}</p>" for note in record.results.get("notes", [])]
    parts += [_figure(figure, folder) for figure in figures]
    parts += [_table(table) for table in make_tables(record)]
    parts.append(_table(_provenance(record)))
    parts.append('<p>Everything above, with raw samples: <a href="report.json">report.json</a></p>')
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
    )
    return head + "\n".join(parts) + "\n</body>\n</html>\n"


def _figure(figure: FigureFile, folder: Path) -> str:
    source = html.escape(figure.path.relative_to(folder).as_posix())
    title = html.escape(figure.title)
    return f'<h2>{title}</h2>\n<img src="{source}" alt="{title}">'


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.columns)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in table.rows
    )
    note = f'\n<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    return (
        f'<h2>{html.escape(table.title)}</h2>\n<div class="table"><table>\n<tr>{head}</tr>\n'
        f"{rows}\n</table></div>{note}"
    )


def _provenance(record: Record) -> Table:
    commit = record.commit or "not run from a checkout"
    values = {
        "command": " ".join(record.command),
        "created": record.created,
        "source": commit + (" with local changes" if record.dirty else ""),
        **{name: str(value) for name, value in record.hardware.items()},
        **{name: str(value) for name, value in record.versions.items()},
        **{f"seed of {name}": str(value) for name, value in record.seeds.items()},
    }
    return Table("How this was measured", ("", ""), tuple(values.items()))
