"""Small pictures in a row, as HTML: with their whole captions, and reachable by keyboard."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO

from PIL import Image

_SIDE = 160
# Of elements with `data-name`, marks of a chart and pictures alike.
OPEN_NAMED = """
const open = (event) => {
  const named = event.target.closest("[data-name]");
  if (named) trigger("select", {name: named.dataset.name});
};
element.addEventListener("click", open);
element.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" && event.key !== " ") return;
  if (event.target.closest("[data-name]")) event.preventDefault();
  open(event);
});
"""


@dataclass(frozen=True)
class Thumbnail:
    """A picture of a row.

    Attributes:
        image: Of any size.
        caption: Below it.
        name: What a click on it says; empty where it cannot be opened.
    """

    image: Image.Image
    caption: str
    name: str = ""


def picture_row(title: str, thumbnails: Sequence[Thumbnail]) -> str:
    """HTML of pictures under a title; one with a name is a button, and says it in `data-name`."""
    entries = "".join(_entry(thumbnail) for thumbnail in thumbnails)
    return f'<h3>{escape(title)}</h3><ul class="pictures">{entries}</ul>'


def _entry(thumbnail: Thumbnail) -> str:
    caption = escape(thumbnail.caption)
    picture = f'<img src="{_address(thumbnail.image)}" alt=""><span>{caption}</span>'
    if not thumbnail.name:
        return f"<li>{picture}</li>"
    name = escape(thumbnail.name)
    return f'<li><button type="button" data-name="{name}">{picture}</button></li>'


def _address(image: Image.Image) -> str:
    small, data = image.convert("RGB"), BytesIO()
    small.thumbnail((_SIDE, _SIDE))
    small.save(data, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
