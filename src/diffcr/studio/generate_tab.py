"""The tab that paints a picture dense and compressed."""

from __future__ import annotations

import json
from dataclasses import dataclass
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
    readout,
    told,
)
from diffcr.studio.models import StudioModel
from diffcr.studio.pictures import OPEN_NAMED, Thumbnail, picture_row
from diffcr.studio.requests import PictureRequest, TimedPicture

_LONGEST_HISTORY = 12
_WRITE = "() => {}"


@dataclass(frozen=True)
class Comparison:
    """A picture, dense and compressed.

    Attributes:
        request: What was asked for.
        method: Title of the method.
        budget: Share of the dense model's tokens; None for a method without a dial.
        dense: Of the dense model.
        compressed: Of the method.
    """

    request: PictureRequest
    method: str
    budget: float | None
    dense: TimedPicture
    compressed: TimedPicture

    @property
    def pictures(self) -> tuple[Any, Any]:
        """Dense on the left, compressed on the right."""
        return self.dense.image, self.compressed.image

    @property
    def numbers(self) -> str:
        """What was measured, as HTML."""
        spent = {} if self.budget is None else {"Budget": f"{self.budget:.0%} of the tokens"}
        return readout(
            {
                "Left: dense": f"{self.dense.seconds:.2f} s",
                "Right: compressed": f"{self.compressed.seconds:.2f} s",
                "Time": f"{self.compressed.seconds / self.dense.seconds:.0%} of the dense",
                **spent,
            }
        )

    @property
    def caption(self) -> str:
        """In the history."""
        spent = "" if self.budget is None else f", {self.budget:.0%}"
        return f"{self.method}{spent}: {self.compressed.seconds:.2f} s"


History = tuple[Comparison, ...]


class GenerateTab:
    """Handlers of the tab.

    Args:
        model: That paints.
    """

    def __init__(self, model: StudioModel) -> None:
        self.model = model

    def generate(
        self,
        prompt: str,
        seed: float | None,
        steps: float | None,
        guidance_scale: float | None,
        method: str,
        budget: float,
        history: History,
    ) -> tuple[Any, ...]:
        """Paint what is asked for; the dense picture of the last request serves again where only
        the method or its budget changed."""
        request = read_request(prompt, seed, steps, guidance_scale)
        has_dial = self.model.methods[method].least_budget is not None
        last = history[0] if history and history[0].request == request else None
        dense = last.dense if last else self.model.paint(request)
        spent = budget if has_dial else None
        compressed = self.model.paint(request, method, spent)
        done = Comparison(request, method, spent, dense, compressed)
        return self.show((done, *history)[:_LONGEST_HISTORY], 0)

    def show(self, history: History, place: int) -> tuple[Any, ...]:
        """A comparison of the history, its numbers, the history, and its state.

        Raises:
            DiffCRError: It is no longer kept.
        """
        if place >= len(history):
            raise DiffCRError("this picture is no longer kept: generate it again")
        chosen = history[place]
        past = [
            Thumbnail(entry.compressed.image, entry.caption, str(index))
            for index, entry in enumerate(history)
        ]
        return (
            gr.ImageSlider(chosen.pictures, visible=True),
            chosen.numbers,
            picture_row("History", past),
            history,
        )


def add_generate_tab(model: StudioModel, prompts: list[str]) -> None:
    """Put the tab on the page.

    Args:
        model: That paints.
        prompts: Examples, at least one.
    """
    tab = GenerateTab(model)
    history = gr.State((), time_to_live=KEPT_FOR)
    with gr.Row():
        with gr.Column(scale=4, min_width=300):
            controls = PictureControls.add(prompts[0], model.guidance_scale)
            chosen = MethodControls.add(model.methods, next(iter(model.methods)))
            controls.add_settings()
            button = gr.Button("Generate", variant="primary")
            gr.Markdown("Prompts to try", elem_classes="hint")
            for prompt in prompts:
                example = gr.Button(prompt, size="sm", elem_classes="example")
                example.click(None, None, controls.prompt, js=_WRITE.format(json.dumps(prompt)))
        with gr.Column(scale=6, min_width=300):
            numbers = gr.HTML("<p>Nothing is painted yet.</p>", elem_id="numbers")
            pictures = gr.ImageSlider(
                label="Dense on the left, compressed on the right",
                buttons=["fullscreen"],
                elem_id="comparison",
                **RESULT,
            )
            past = gr.HTML(js_on_load=OPEN_NAMED, elem_id="history")
    outputs = [pictures, numbers, past, history]
    inputs = [*controls.inputs, *chosen.inputs, history]
    queued = {**QUEUED, "show_progress_on": [numbers]}
    gr.on([button.click, controls.prompt.submit], told(tab.generate), inputs, outputs, **queued)

    def follow(*values: Any) -> Any:
        # A dial that is moved before the first picture asks for none.
        return tab.generate(*values) if values[-1] else tuple(gr.skip() for _ in outputs)

    chosen.dial.release(told(follow), inputs, outputs, trigger_mode="always_last", **queued)

    def choose(kept: History, event: gr.EventData) -> Any:
        return tab.show(kept, int(event.name))

    past.select(told(choose), history, outputs, **LOCAL)
