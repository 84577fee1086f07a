"""Controls that several tabs have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from html import escape
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from diffcr.errors import DiffCRError
from diffcr.studio.models import StudioMethod
from diffcr.studio.requests import (
    LARGEST_GUIDANCE,
    LARGEST_SEED,
    LONGEST_PROMPT,
    MOST_STEPS,
    PictureRequest,
)

_PRIVATE = {"api_visibility": "private"}
# Events that need a model wait in one queue, the others in none.
QUEUED: dict[str, Any] = {**_PRIVATE, "concurrency_id": "models", "concurrency_limit": 1}
LOCAL: dict[str, Any] = {**_PRIVATE, "queue": False, "show_progress": "hidden"}
# Seconds after which a visitor's pictures are deleted, in memory and on disk.
KEPT_FOR = 3600
# Of pictures that the page shows once they are there.
RESULT: dict[str, Any] = {
    "type": "pil",
    "format": "png",
    "interactive": False,
    "visible": False,
}

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True)
class PictureControls:
    """What a picture is asked for with.

    Attributes:
        prompt: Text box.
        seed: Number.
        steps: Slider.
        guidance_scale: Slider.
    """

    prompt: Any
    seed: Any
    steps: Any
    guidance_scale: Any

    @classmethod
    def add(cls, prompt: str, guidance_scale: float) -> PictureControls:
        """Put them on the page, with what they begin with."""
        return cls(
            gr.Textbox(prompt, label="Prompt", lines=2, max_length=LONGEST_PROMPT),
            gr.Number(0, label="Seed", precision=0, minimum=0, maximum=LARGEST_SEED, render=False),
            gr.Slider(1, MOST_STEPS, 20, step=1, label="Denoising steps", render=False),
            gr.Slider(
                0, LARGEST_GUIDANCE, guidance_scale, step=0.1, label="Guidance scale", render=False
            ),
        )

    def add_settings(self) -> None:
        """Put seed, steps and guidance scale on the page."""
        with gr.Accordion("Seed, steps, guidance", open=False):
            self.seed.render()
            self.steps.render()
            self.guidance_scale.render()

    @property
    def inputs(self) -> list[Any]:
        """In the order of `PictureRequest`."""
        return [self.prompt, self.seed, self.steps, self.guidance_scale]


@dataclass(frozen=True)
class MethodControls:
    """How a picture is compressed.

    Attributes:
        method: Radio of titles.
        dial: Slider of the budget, hidden for a method without one.
    """

    method: Any
    dial: Any

    @classmethod
    def add(cls, methods: Mapping[str, StudioMethod], first: str) -> MethodControls:
        """Put them on the page.

        Args:
            methods: By title.
            first: Title of the one that is chosen at first.
        """
        least = methods[first].least_budget
        method = gr.Radio([*methods], value=first, label="Method")
        dial = gr.Slider(
            least or 0,
            1,
            0.5,
            step=0.01,
            label="Budget, share of the tokens",
            visible=least is not None,
            buttons=[],
        )
        method.change(lambda title: _dial_of(methods[title]), method, dial, **LOCAL)
        return cls(method, dial)

    @property
    def inputs(self) -> list[Any]:
        """Title and budget."""
        return [self.method, self.dial]


def _dial_of(method: StudioMethod) -> Any:
    if method.least_budget is None:
        return gr.Slider(visible=False)
    return gr.Slider(minimum=method.least_budget, visible=True)


def read_request(
    prompt: str, seed: float | None, steps: float | None, guidance_scale: float | None
) -> PictureRequest:
    """What the controls say.

    Raises:
        DiffCRError: As in `PictureRequest`.
    """
    numbers = {"seed": seed, "denoising steps": steps, "guidance scale": guidance_scale}
    for name, value in numbers.items():
        if value is None:
            raise DiffCRError(f"{name} is empty: give a number")
    assert seed is not None and steps is not None and guidance_scale is not None
    return PictureRequest(prompt, int(seed), int(steps), float(guidance_scale))


def told(handler: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A handler whose mistakes of the visitor's are shown as a message on the page."""

    @wraps(handler)
    def telling(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return handler(*args, **kwargs)
        except DiffCRError as error:
            raise gr.Error(str(error), duration=8, print_exception=False) from error

    return telling


def readout(values: Mapping[str, str]) -> str:
    """Named values side by side, as HTML."""
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in values.items()
    )
    return f'<dl class="readout">{cells}</dl>'
