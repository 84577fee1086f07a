"""The tab that shows what is computed inside."""

from __future__ import annotations

from typing import Any

import gradio as gr

from diffcr.errors import DiffCRError
from diffcr.studio.elements import (
    KEPT_FOR,
    LOCAL,
    QUEUED,
    RESULT,
    MethodControls,
    PictureControls,
    read_request,
    told,
)
from diffcr.studio.models import StudioModel
from diffcr.studio.views import InsideView

_ALL_LAYERS = "all layers"


class InsideTab:
    """Handlers of the tab.

    Args:
        model: That is looked into.
    """

    def __init__(self, model: StudioModel) -> None:
        self.model = model

    def look(
        self,
        prompt: str,
        seed: float | None,
        steps: float | None,
        guidance_scale: float | None,
        method: str,
        budget: float,
    ) -> tuple[Any, ...]:
        """Paint a picture, and show its middle step."""
        request = read_request(prompt, seed, steps, guidance_scale)
        view = self.model.look_inside(request, method, budget)
        middle = view.steps // 2
        layers = [_ALL_LAYERS, *(f"layer {layer}" for layer in range(view.layers))]
        return (
            view,
            gr.Slider(1, max(2, view.steps), middle + 1, visible=view.steps > 1),
            gr.Dropdown(layers, value=_ALL_LAYERS, visible=view.layers > 0),
            *self.scrub(view, middle + 1, _ALL_LAYERS),
        )

    def scrub(self, view: InsideView | None, step: float, layer: str) -> tuple[Any, ...]:
        """Map, sentence and table of a step and a layer.

        Raises:
            DiffCRError: The maps are no longer kept.
        """
        if view is None:
            raise DiffCRError("these maps are no longer kept: look inside again")
        place = min(int(step), view.steps) - 1
        chosen = None if layer == _ALL_LAYERS else int(layer.removeprefix("layer "))
        return (
            gr.Image(view.draw(place, chosen), visible=True),
            f"<p>{view.describe(place, chosen)}</p>",
            view.table(place, chosen),
        )


def add_inside_tab(model: StudioModel, prompt: str) -> None:
    """Put the tab on the page."""
    tab = InsideTab(model)
    methods = {title: method for title, method in model.methods.items() if method.has_maps}
    if not methods:
        gr.Markdown("The attached method has neither routers nor ages of tokens to look at.")
        return
    view = gr.State(None, time_to_live=KEPT_FOR)
    with gr.Row():
        with gr.Column(scale=4, min_width=300):
            controls = PictureControls.add(prompt, model.guidance_scale)
            chosen = MethodControls.add(methods, [*methods][-1])
            controls.add_settings()
            button = gr.Button("Look inside", variant="primary")
            table = gr.HTML(elem_id="ratios", apply_default_css=False)
        with gr.Column(scale=6, min_width=300):
            said = gr.HTML("<p>Nothing is painted yet.</p>", elem_id="said")
            step = gr.Slider(1, 20, 1, step=1, label="Denoising step", visible=False, buttons=[])
            layer = gr.Dropdown([_ALL_LAYERS], label="Layer", visible=False)
            shown = gr.Image(
                label="Tokens over the picture",
                buttons=["fullscreen"],
                elem_id="tokens",
                **RESULT,
            )
    seen = [shown, said, table]
    gr.on(
        [button.click, controls.prompt.submit],
        told(tab.look),
        [*controls.inputs, *chosen.inputs],
        [view, step, layer, *seen],
        show_progress_on=[said],
        **QUEUED,
    )
    gr.on([step.input, layer.input], told(tab.scrub), [view, step, layer], seen, **LOCAL)
