"""The page: its tabs."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from diffcr.studio.compare_tab import add_compare_tab
from diffcr.studio.elements import KEPT_FOR
from diffcr.studio.frontier import Frontier
from diffcr.studio.generate_tab import add_generate_tab
from diffcr.studio.inpaint_tab import add_inpaint_tab
from diffcr.studio.inpainting import InpaintingModel
from diffcr.studio.inside_tab import add_inside_tab
from diffcr.studio.models import StudioModel

_SCENES = [
    "a large red plain star in the middle on a striped teal background",
    "a medium yellow dotted circle in the top right corner on a noisy white background",
    "a large purple striped square at the bottom left on a plain grey background",
]
_PROMPTS = ["a small cactus with a happy face in the Sahara desert", "a red bicycle in the rain"]


def build_page(model: StudioModel, inpainting: InpaintingModel, frontier: Frontier | None) -> Any:
    """Gradio's `Blocks`.

    Args:
        model: That paints.
        inpainting: That repaints.
        frontier: What the records say; None without records.
    """
    prompts = _SCENES if model.knows_scenes else _PROMPTS
    page = gr.Blocks(
        title="diffcr studio", analytics_enabled=False, delete_cache=(KEPT_FOR, KEPT_FOR)
    )
    with page:
        gr.HTML(
            f"<h1>diffcr studio</h1><p>{escape(model.name)}</p>",
            elem_classes="title",
        )
        with gr.Tab("Generate"):
            add_generate_tab(model, prompts)
        with gr.Tab("Inpaint"):
            add_inpaint_tab(inpainting)
        with gr.Tab("Look inside"):
            add_inside_tab(model, prompts[0])
        with gr.Tab("Compare"):
            add_compare_tab(frontier)
    return page
