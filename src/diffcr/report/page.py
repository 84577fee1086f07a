"""What every HTML page shares: its head and style, tables and figures."""

from __future__ import annotations

import html
from collections.abc import Sequence

from diffcr.report.tables import Table

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


def make_page(title: str, parts: Sequence[str]) -> str:
    """A whole page under its title.

    Args:
        title: Plain text.
        parts: HTML of the body.
    """
    name = html.escape(title)
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{name}</h1>\n"
    )
    return head + "\n".join(parts) + "\n</body>\n</html>\n"


def table_html(table: Table) -> str:
    """A table under its title, with its note."""
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


def figure_html(title: str, source: str) -> str:
    """A picture, by its address, under its title."""
    name = html.escape(title)
    return f'<h2>{name}</h2>\n<img src="{html.escape(source)}" alt="{name}">'
