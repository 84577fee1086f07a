"""How the page looks. Nothing is fetched from elsewhere: fonts are the visitor's own."""

from __future__ import annotations

from typing import Any

_FONTS = ("system-ui", "sans-serif")

CSS = """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
footer { display: none !important; }
.title h1 { margin: 0; font-size: 1.6rem; }
.title p { margin: .2rem 0 0; color: var(--body-text-color-subdued); }
.example { font-weight: 400 !important; text-align: left !important;
  justify-content: flex-start !important; }
.hint { font-size: .9rem; color: var(--body-text-color-subdued); }
.readout { display: flex; flex-wrap: wrap; gap: .5rem 1.6rem; margin: 0; }
.readout dt { font-size: .85rem; color: var(--body-text-color-subdued); }
.readout dd { margin: 0; font-size: 1.15rem; font-weight: 600; font-variant-numeric: tabular-nums; }
#comparison [data-testid="block-label"], #tokens [data-testid="block-label"],
#repainted [data-testid="block-label"] { position: static; }
.chart { margin: 0; }
.chart svg { width: 100%; height: auto; }
.chart text { fill: var(--body-text-color); font-size: 13px; }
.chart .grid { stroke: var(--border-color-primary); fill: none; }
.chart .line { fill: none; stroke-width: 1.6; }
.chart .mark { cursor: pointer; outline: none; }
.chart .mark:focus-visible circle, .chart .mark:hover circle {
  stroke: var(--body-text-color); stroke-width: 3; }
.chart ul { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; padding: 0; margin: .4rem 0 0;
  list-style: none; }
.chart li { display: flex; align-items: center; gap: .45rem; font-size: .9rem; }
.chart li span { width: .8rem; height: .8rem; border-radius: 50%; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(104px, 1fr));
  gap: .8rem; padding: 0; margin: .5rem 0 0; list-style: none; }
.pictures img { width: 100%; border-radius: 4px; display: block; margin: 0 0 .25rem; }
.pictures span { font-size: .8rem; line-height: 1.3; display: block; }
.pictures button { text-align: left; cursor: pointer; width: 100%; padding: 0 !important;
  font-weight: 400 !important; background: none !important; }
.pictures button:focus-visible, .pictures button:hover { outline: 3px solid #0072b2; }
.heat, .heat th, .heat td, .heat tr { border: none !important; }
.heat { border-collapse: separate; border-spacing: 2px; width: 100%; font-size: .85rem;
  font-variant-numeric: tabular-nums; }
.heat caption { text-align: left; padding-bottom: .4rem; font-size: .95rem; }
.heat th { font-weight: 400; text-align: left; padding: .15rem .6rem .15rem 0;
  white-space: nowrap; }
.heat td { text-align: center; padding: .15rem .4rem; border-radius: 3px; }
.heat td.current { outline: 3px solid #d55e00; }
"""


def make_theme() -> Any:
    """Gradio's plain theme in blue, with system fonts."""
    import gradio as gr

    plain = gr.themes.Default(
        primary_hue="blue", neutral_hue="slate", font=_FONTS, font_mono=("monospace",)
    )
    # The plain theme's grey is too pale to be read.
    return plain.set(
        body_text_color_subdued="*neutral_600",
        block_title_text_color="*neutral_700",
        block_label_text_color="*neutral_700",
        block_info_text_color="*neutral_600",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
    )
