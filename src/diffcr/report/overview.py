"""One self-contained page of many records: tables, figures, and where every number is from."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from diffcr.errors import DiffCRError
from diffcr.files import write_text
from diffcr.report.comparison import QUALITY_HEADER, Collection, quality_rows, read_collection
from diffcr.report.figures.curves import plot_loss_against_ratio
from diffcr.report.figures.heat_maps import plot_compression
from diffcr.report.figures.trade_off import MOST_SERIES, plot_trade_offs, trade_offs
from diffcr.report.page import figure_html, make_page, table_html
from diffcr.report.sections import make_tables
from diffcr.report.tables import Table

_QUALITY = (
    "Mean and standard deviation over the seeds. FLOPs: of one forward, as a share of the dense "
    "model's. The judge's Frechet distance is not FID."
)


def write_overview(directory: str | Path, page: str | Path) -> Path:
    """Write the page of a directory's records; its figures are inside of it.

    Raises:
        DiffCRError: There are no records, one is damaged, or its results are of another kind.
    """
    collection = read_collection(Path(directory))
    for name, row in collection.rows.items():
        with _naming(name):
            quality_rows({name: row}, {name: name})
    with _naming(str(directory)):
        return _write(collection, Path(page))


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Within the context, what results of another kind break is one line that names them."""
    try:
        yield
    except DiffCRError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise DiffCRError(
            f"the results of {name} are not what a record of their kind holds "
            f"({type(error).__name__}: {error}): take the record out, or copy it again"
        ) from error


def _write(collection: Collection, target: Path) -> Path:
    parts, tables = [], []
    if collection.rows:
        titles = {name: name for name in collection.rows}
        lines = tuple(tuple(line) for line in quality_rows(collection.rows, titles))
        parts = [_picture(title, draw) for title, draw in _figures(collection)]
        tables.append(Table("Quality and operations", QUALITY_HEADER, lines, _QUALITY))
    for name, record in collection.others.items():
        with _naming(name):
            tables += [replace(t, title=f"{name}: {t.title}") for t in make_tables(record)]
    tables.append(_sources(collection))
    parts += [table_html(table) for table in tables]
    write_text(target, make_page("Methods compared", parts))
    return target


def _figures(collection: Collection) -> list[tuple[str, Callable[[Path], None]]]:
    panels = trade_offs(collection)
    title = "Quality against cost"
    if len({point.series for point in panels[0].points}) > MOST_SERIES:
        title += f", {MOST_SERIES} of the methods; the table has all"
    figures: list[tuple[str, Callable[[Path], None]]] = [
        (title, lambda path: plot_trade_offs(panels, path))
    ]
    learned = {
        name: row.records
        for name, row in collection.rows.items()
        if all(record.results.get("by_products") for record in row.records)
    }
    if learned:
        first = {name: records[0] for name, records in learned.items()}
        figures += [
            ("Held-out error on the way", lambda path: plot_loss_against_ratio(learned, path)),
            ("Learned ratios", lambda path: plot_compression(first, path)),
        ]
    return figures


def _picture(title: str, draw: Callable[[Path], None]) -> str:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "figure.png"
        draw(file)
        data = base64.b64encode(file.read_bytes()).decode()
    return figure_html(title, f"data:image/png;base64,{data}")


def _sources(collection: Collection) -> Table:
    records = {
        **{
            f"{name}, seed {seed}": record
            for name, row in collection.rows.items()
            for seed, record in enumerate(row.records)
        },
        **collection.others,
    }
    lines = tuple(
        (
            name,
            (record.commit or "no checkout")[:10] + (", changed" if record.dirty else ""),
            record.created,
            " ".join(record.command),
            str(record.hardware.get("cpu", "")),
        )
        for name, record in records.items()
    )
    columns = ("record", "commit", "created", "command", "hardware")
    return Table("Where the numbers are from", columns, lines)
