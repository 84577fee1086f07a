"""The tab that repaints part of a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcr.errors import DiffCRError
from diffcr.inpainting.example import make_example
from diffcr.studio.chart import Axis, Line, Mark, draw_chart
from diffcr.studio.elements import (
    KEPT_FOR,
    QUEUED,
    RESULT,
    PictureControls,
    read_request,
    readout,
    told,
)
from diffcr.studio.inpainting import InpaintingModel
from diffcr.studio.requests import RepaintedPicture

PAINTED = "What is painted over"
_PARTS = {
    "Left half": (slice(None), slice(None, 1)),
    "Right half": (slice(None), slice(1, None)),
    "Upper half": (slice(None, 1), slice(None)),
    "Lower half": (slice(1, None), slice(None)),
    "Everything": (slice(None), slice(None)),
}
_BLUE = "#0072b2"
_LONGEST_HISTORY = 24
_SHOWN_SIDE = 512
_CHART_SIZE = (460, 260)
_BRUSH = "rgba(213, 94, 0, 0.75)"


@dataclass(frozen=True)
class Stroke:
    """A repainting that was measured.

    Attributes:
        area: Share of the picture under the mask.
        seconds: That it took.
    """

    area: float
    seconds: float


def read_mask(layers: list[Image.Image], part: str, size: tuple[int, int]) -> NDArray[np.bool_]:
    """What is to be repainted, [H, W].

    Args:
        layers: Strokes on transparent pictures of that size.
        part: `PAINTED`, or a part of the picture by name.
        size: Width and height in pixels.

    Raises:
        DiffCRError: There is no such part.
    """
    width, height = size
    mask = np.zeros((height, width), dtype=bool)
    if part == PAINTED:
        for layer in layers:
            mask |= np.asarray(layer.convert("RGBA"))[..., 3] > 0
        return mask
    if part not in _PARTS:
        raise DiffCRError(f"no part is called {part!r}: choose from {', '.join(_PARTS)}")
    halves = np.zeros((2, 2), dtype=bool)
    halves[_PARTS[part]] = True
    rows, columns = np.arange(height) * 2 // height, np.arange(width) * 2 // width
    return halves[np.ix_(rows, columns)]


class InpaintTab:
    """Handlers of the tab.

    Args:
        model: That repaints.
    """

    def __init__(self, model: InpaintingModel) -> None:
        self.model = model

    def repaint(
        self,
        drawing: dict[str, Any] | None,
        part: str,
        prompt: str,
        seed: float | None,
        steps: float | None,
        guidance_scale: float | None,
        strokes: tuple[Stroke, ...],
    ) -> tuple[Any, ...]:
        """The repainted picture, its numbers, the chart of all strokes, and their state."""
        if drawing is None or drawing["background"] is None:
            raise DiffCRError("there is no picture: upload one, or take the example")
        request = read_request(prompt, seed, steps, guidance_scale)
        image = drawing["background"].convert("RGB")
        mask = read_mask(drawing["layers"], part, image.size)
        painted = self.model.repaint(image, mask, request)
        strokes = (*strokes, Stroke(painted.area, painted.seconds))[-_LONGEST_HISTORY:]
        return gr.Image(painted.image, visible=True), _numbers(painted), _chart(strokes), strokes


def _numbers(painted: RepaintedPicture) -> str:
    return readout(
        {"Masked": f"{painted.area:.0%} of the picture", "Time": f"{painted.seconds:.2f} s"}
    )


def _chart(strokes: tuple[Stroke, ...]) -> str:
    marks = [
        Mark(100 * s.area, s.seconds, f"{s.area:.0%} masked: {s.seconds:.2f} s") for s in strokes
    ]
    horizontal = Axis("masked share of the picture, %", 0, 104)
    vertical = Axis.around("time, s", [stroke.seconds for stroke in strokes], least=0)
    line = Line("Your strokes", _BLUE, marks, joined=False)
    return draw_chart("Time against the masked area", [line], horizontal, vertical, _CHART_SIZE)


def add_inpaint_tab(model: InpaintingModel) -> None:
    """Put the tab on the page."""
    tab, example = InpaintTab(model), make_example()
    strokes = gr.State((), time_to_live=KEPT_FOR)
    with gr.Row():
        with gr.Column(scale=5, min_width=300):
            drawing = gr.ImageEditor(
                _enlarged(example.image),
                label="Picture: paint over what is to change",
                type="pil",
                format="png",
                sources=("upload",),
                transforms=(),
                layers=False,
                brush=gr.Brush(default_size=60, colors=[_BRUSH], color_mode="fixed"),
                eraser=gr.Eraser(default_size=60),
                canvas_size=(_SHOWN_SIDE, _SHOWN_SIDE),
                height=580,
                buttons=[],
                elem_id="drawing",
            )
            part = gr.Dropdown(
                [PAINTED, *_PARTS],
                value=PAINTED,
                label="What is repainted",
                info="A part by name needs no mouse.",
            )
            controls = PictureControls.add(example.prompt, model.guidance_scale)
            controls.add_settings()
            button = gr.Button("Repaint", variant="primary")
            if model.knows_scenes:
                gr.Markdown(
                    "The embedded model knows the project's scenes alone; photographs are beyond "
                    "it.",
                    elem_classes="hint",
                )
        with gr.Column(scale=5, min_width=300):
            numbers = gr.HTML("<p>Nothing is repainted yet.</p>", elem_id="strokes-numbers")
            painted = gr.Image(
                label="Repainted",
                buttons=["download", "fullscreen"],
                elem_id="repainted",
                **RESULT,
            )
            chart = gr.HTML(elem_id="strokes")
    gr.on(
        [button.click, controls.prompt.submit],
        told(tab.repaint),
        [drawing, part, *controls.inputs, strokes],
        [painted, numbers, chart, strokes],
        show_progress_on=[numbers],
        **QUEUED,
    )


def _enlarged(image: Image.Image) -> Image.Image:
    """A small picture at a size that can be painted on."""
    size = (_SHOWN_SIDE, _SHOWN_SIDE * image.height // image.width)
    return image.resize(size, Image.Resampling.BICUBIC)
