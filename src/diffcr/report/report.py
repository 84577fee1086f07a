"""A report directory: the record, its figures, and a page that shows both."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffcr.files import write_text
from diffcr.records.record import Record, write_record
from diffcr.report.figures.record import FigureFile, plot_all
from diffcr.report.page import figure_html, make_page, table_html
from diffcr.report.sections import make_tables
from diffcr.report.tables import Table

RECORD = "report.json"
PAGE = "report.html"


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
    page = folder / PAGE
    write_text(page, _page(record, figures, folder, title))
    return Report(folder, page, path, tuple(figure.path for figure in figures))


def _page(record: Record, figures: Sequence[FigureFile], folder: Path, title: str) -> str:
    parts = [f"<p>{html.escape(note)}</p>" for note in record.results.get("notes", [])]
    parts += [figure_html(f.title, f.path.relative_to(folder).as_posix()) for f in figures]
    parts += [table_html(table) for table in [*make_tables(record), _provenance(record)]]
    parts.append('<p>Everything above, with raw samples: <a href="report.json">report.json</a></p>')
    return make_page(title, parts)


def _provenance(record: Record) -> Table:
    commit = record.commit or "not run from a checkout"
    settings = dict(record.configuration.get("method", {}))
    method = str(settings.pop("method", "dense"))
    values = {
        "method": ", ".join([method, *(f"{key} {value}" for key, value in settings.items())]),
        "command": " ".join(record.command),
        "created": record.created,
        "source": commit + (" with local changes" if record.dirty else ""),
        **{name: str(value) for name, value in record.hardware.items()},
        **{name: str(value) for name, value in record.versions.items()},
        **{f"seed of {name}": str(value) for name, value in record.seeds.items()},
    }
    return Table("How this was measured", ("", ""), tuple(values.items()))
