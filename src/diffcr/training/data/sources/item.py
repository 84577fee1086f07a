"""A captioned picture that is about to be read, and what gives such."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any, Protocol

from PIL import Image

from diffcr.errors import DiffCRError
from diffcr.inpainting.images.pictures import open_rgb

CAPTION_KEYS = ("text", "caption")


@dataclass(frozen=True)
class SourceItem:
    """A captioned picture that was not read yet.

    Attributes:
        name: What a list of passed over pictures calls it.
        caption: What it shows.
        read: Gives the picture, RGB; raises DiffCRError where it cannot be read.
    """

    name: str
    caption: str
    read: Callable[[], Image.Image]


class PictureSource(Protocol):
    """Captioned pictures in units, which processes share out among them; its `repr` identifies
    what it holds."""

    @property
    def units(self) -> int:
        """Number of units, at least 1."""
        ...

    def items(self, unit: int, start: int = 0) -> Iterator[SourceItem]:
        """Items of a unit, from 0, in an order that stays, without the first `start` of them."""
        ...


def stored_item(name: str, caption: object, picture: bytes) -> SourceItem:
    """An item whose picture is there as the contents of a file."""
    if not isinstance(caption, str):
        return unreadable(name, "it has no caption: a text, called text or caption")
    return SourceItem(name, caption, partial(_open_stored, picture, name))


def _open_stored(picture: bytes, name: str) -> Image.Image:
    return open_rgb(BytesIO(picture), name)


def unreadable(name: str, reason: str) -> SourceItem:
    """An item that is passed over, and why."""

    def fail() -> Image.Image:
        raise DiffCRError(reason)

    return SourceItem(name, "", fail)


def caption_of(values: Mapping[str, Any]) -> object:
    """What is called text, or caption; None where nothing is."""
    return next((values[key] for key in CAPTION_KEYS if key in values), None)
