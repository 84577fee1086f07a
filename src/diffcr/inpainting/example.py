"""Pictures to repaint, and one for those who have none at hand."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcr.inpainting.images.masks import bounds
from diffcr.scenes import ScenesDataset
from diffcr.scenes.captions import write_caption

_SIDE = 128
_ITEM = 11
_MARGIN = 6


@dataclass(frozen=True)
class Example:
    """A picture with what is to be seen in a part of it.

    Attributes:
        image: RGB.
        mask: [H, W] bool, what is repainted.
        prompt: The picture as it is to be; empty where nobody says.
    """

    image: Image.Image
    mask: NDArray[np.bool_]
    prompt: str


def make_example() -> Example:
    """A scene with a box around its object, and another object that is to take its place: the same
    one every time, no test or training picture."""
    scenes = ScenesDataset("validation", resolution=_SIDE, object_shares=(1.0,))
    scene = scenes[_ITEM]
    (present,) = scene.attributes.objects
    wanted = replace(present, shape="circle", colour="blue", texture="plain")
    attributes = replace(scene.attributes, objects=(wanted,))
    mask = np.zeros_like(scene.mask)
    mask[bounds(scene.mask, _MARGIN)] = True
    return Example(scene.image, mask, write_caption(attributes, np.random.default_rng(0)))
