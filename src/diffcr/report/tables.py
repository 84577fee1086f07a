"""A table of text, for the terminal and for pages."""

from __future__ import annotations

from dataclasses import dataclass

from diffcr.core.regions import region_timesteps


@dataclass(frozen=True)
class Table:
    """Text in rows and columns.

    Attributes:
        title: What is measured.
        columns: Headings; the first column names the row.
        rows: Cells, as many as columns.
        note: How it was measured; may be empty.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def region_headings(regions: int) -> tuple[str, ...]:
    """Timestep ranges, clean to noisy."""
    ranges = [region_timesteps(region, regions) for region in range(regions)]
    return tuple(f"t {within.start}-{within.stop - 1}" for within in ranges)
