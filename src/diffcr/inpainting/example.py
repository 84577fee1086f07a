"""A picture to repaint, for those who have none at hand."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from diffcr.inpainting.images.masks import bounds
from diffcr.scenes import ScenesDataset
from diffcr.scenes.captions import write_caption

_SIDE = 128
_ITEM = 11
_MARGIN = 6


@dataclass(frozen=True)
class Example:
    """A scene and another object that is to take the place of its own.

    Attributes:
        image: RGB.
        mask: Greyscale, white in a box around the object.
        prompt: The scene as it is to be.
    """

    image: Image.Image
    mask: Image.Image
    prompt: str


def make_example() -> Example:
    """The same one every time; no test or training picture."""
    scenes = ScenesDataset("validation", resolution=_SIDE, object_shares=(1.0,))
    scene = scenes[_ITEM]
    (present,) = scene.attributes.objects
    wanted = replace(present, shape="circle", colour="blue", texture="plain")
    attributes = replace(scene.attributes, objects=(wanted,))
    mask = np.zeros_like(scene.mask)
    mask[bounds(scene.mask, _MARGIN)] = True
    prompt = write_caption(attributes, np.random.default_rng(0))
    return Example(scene.image, Image.fromarray(mask.astype(np.uint8) * 255), prompt)
