"""`scenes` as a data set with fixed splits: item i of a split is the same picture everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcr.errors import DiffCRError
from diffcr.scenes.attributes import (
    BACKGROUND_COLOURS,
    BACKGROUND_TEXTURES,
    COLOURS,
    PLACES,
    SHAPES,
    SIZES,
    TEXTURES,
    ObjectAttributes,
    SceneAttributes,
)
from diffcr.scenes.captions import write_caption
from diffcr.scenes.drawing import draw_scene

Split = Literal["train", "validation", "test"]
_MOST = 10_000_000
_SIZES: dict[str, int] = {"train": 20_000, "validation": 1_000, "test": 2_000}


@dataclass(frozen=True)
class Scene:
    """One captioned picture.

    Attributes:
        image: RGB.
        caption: English, names every attribute.
        mask: [H, W] bool, where objects are.
        attributes: What the caption says, structured.
    """

    image: Image.Image
    caption: str
    mask: NDArray[np.bool_]
    attributes: SceneAttributes


@dataclass(frozen=True)
class ScenesDataset:
    """Captioned pictures of objects on backgrounds, made when they are asked for.

    Attributes:
        split: Its items share no random state with another split's.
        size: Number of items, the split's own (20000, 1000, 2000) by default.
        resolution: Height and width in pixels, a multiple of 8.
        object_shares: Probability of 1, 2, ... objects.

    Raises:
        DiffCRError: A value is outside its range.
    """

    split: Split = "train"
    size: int | None = None
    resolution: int = 96
    object_shares: tuple[float, ...] = (0.5, 0.5)

    def __post_init__(self) -> None:
        if self.split not in get_args(Split):
            raise DiffCRError(f"split is {self.split!r}: choose from {', '.join(get_args(Split))}")
        if self.size is not None and not 1 <= self.size <= _MOST:
            raise DiffCRError(f"size is {self.size}: give 1 to {_MOST}")
        if self.resolution < 32 or self.resolution % 8:
            raise DiffCRError(f"resolution is {self.resolution}: give a multiple of 8 from 32 on")
        if not 1 <= len(self.object_shares) <= len(PLACES):
            raise DiffCRError(f"object_shares has {len(self.object_shares)} entries: give 1 to 5")

    def __len__(self) -> int:
        return self.size if self.size is not None else _SIZES[self.split]

    def __iter__(self) -> Iterator[Scene]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Scene:
        if not 0 <= index < len(self):
            raise IndexError(index)
        attributes, caption, random = self._describe(index)
        drawing = draw_scene(attributes, self.resolution, random)
        return Scene(Image.fromarray(drawing.pixels), caption, drawing.mask, attributes)

    def describe(self, index: int) -> Scene:
        """Item `index` with a picture of one pixel: its caption and attributes without drawing."""
        attributes, caption, _ = self._describe(index)
        blank = np.zeros((1, 1), dtype=bool)
        return Scene(Image.new("RGB", (1, 1)), caption, blank, attributes)

    def _describe(self, index: int) -> tuple[SceneAttributes, str, np.random.Generator]:
        """Attributes, caption, and the generator that goes on to draw them."""
        split = get_args(Split).index(self.split)
        random = np.random.default_rng(np.random.SeedSequence([split, index]))
        attributes = self._draw_attributes(random)
        return attributes, write_caption(attributes, random), random

    def _draw_attributes(self, random: np.random.Generator) -> SceneAttributes:
        shares = np.asarray(self.object_shares) / sum(self.object_shares)
        count = 1 + random.choice(len(shares), p=shares)
        places = random.choice(len(PLACES), size=count, replace=False)

        def pick(words: tuple[str, ...]) -> str:
            return words[random.integers(len(words))]

        objects = tuple(
            ObjectAttributes(
                pick(SHAPES), pick(COLOURS), pick(TEXTURES), pick(SIZES), PLACES[place]
            )
            for place in places
        )
        return SceneAttributes(objects, pick(BACKGROUND_COLOURS), pick(BACKGROUND_TEXTURES))
