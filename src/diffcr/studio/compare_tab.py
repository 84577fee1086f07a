"""The tab that compares methods by their records."""

from __future__ import annotations

from typing import Any

import gradio as gr

from diffcr.report.figures.trade_off import MOST_SERIES
from diffcr.studio.elements import LOCAL, told
from diffcr.studio.frontier import REFERENCE, Frontier
from diffcr.studio.pictures import OPEN_NAMED, picture_row

_MISSING = (
    "No records are open. `diffcr studio --records benchmarks/results` in a checkout of the "
    "project shows its own; `diffcr eval` writes others."
)


class CompareTab:
    """Handlers of the tab.

    Args:
        frontier: What was measured.
    """

    def __init__(self, frontier: Frontier) -> None:
        self.frontier = frontier

    def switch(self, shown: list[str]) -> tuple[Any, str]:
        """The first lines of those that are chosen, and their chart."""
        if len(shown) > MOST_SERIES:
            gr.Info(f"A chart shows {MOST_SERIES} methods at most: switch one off first.")
            shown = shown[:MOST_SERIES]
        return shown, self.frontier.draw(shown)

    def open(self, event: gr.EventData) -> str:
        """A point in words, and its pictures."""
        point = self.frontier.point(str(event.name))
        said, pictures = self.frontier.describe(point), self.frontier.pictures(point.row)
        if not pictures:
            return f"<p>{said}. No pictures of it were kept.</p>"
        return f"<p>{said}.</p>" + picture_row("Its first pictures", pictures)


def add_compare_tab(frontier: Frontier | None) -> None:
    """Put the tab on the page; without records it says how to get some."""
    if frontier is None:
        gr.Markdown(_MISSING)
        return
    tab, series = CompareTab(frontier), frontier.series
    first = [name for name in series if name != REFERENCE][:MOST_SERIES]
    chosen = gr.CheckboxGroup(
        [(title, name) for name, title in series.items()],
        value=first,
        label=f"Methods, {MOST_SERIES} at most",
    )
    chart = gr.HTML(frontier.draw(first), js_on_load=OPEN_NAMED, elem_id="frontier")
    opened = gr.HTML("<p>A point opens its pictures.</p>", elem_id="opened")
    chosen.input(told(tab.switch), chosen, [chosen, chart], **LOCAL)
    chart.select(told(tab.open), None, opened, **LOCAL)
