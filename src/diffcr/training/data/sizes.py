"""Sizes that pictures are brought to: a square, or the nearest of several aspect ratios."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

from PIL import Image, ImageOps


@dataclass(frozen=True, order=True)
class PictureSize:
    """In pixels."""

    height: int
    width: int


def sizes_of_area(resolution: int, multiple: int, largest_ratio: float) -> tuple[PictureSize, ...]:
    """Sizes of about `resolution` squared pixels, from the narrowest to the widest.

    Args:
        resolution: Side of the square among them, in pixels.
        multiple: Of both sides, apart from the square's.
        largest_ratio: Of the longer side to the shorter one, 1 or more; 1 is the square alone.
    """
    # About sixteen sizes up to a ratio of 4, as the tables of SDXL and PixArt have them.
    step = multiple * max(1, round(resolution / 16 / multiple))
    found = {PictureSize(resolution, resolution)}
    for longer in range(resolution // step * step, 4 * resolution, step):
        shorter = resolution * resolution // longer // step * step
        if shorter and longer > resolution and longer <= largest_ratio * shorter:
            found |= {PictureSize(longer, shorter), PictureSize(shorter, longer)}
    return tuple(sorted(found, key=lambda size: (size.width / size.height, size)))


def nearest_size(image: Image.Image, sizes: tuple[PictureSize, ...]) -> PictureSize:
    """The size whose aspect ratio is nearest to a picture's."""
    ratio = log(image.width / image.height)
    return min(sizes, key=lambda size: abs(log(size.width / size.height) - ratio))


def fit_picture(image: Image.Image, size: PictureSize) -> Image.Image:
    """A picture scaled and cropped in the centre to a size, at once."""
    return ImageOps.fit(image, (size.width, size.height), Image.Resampling.LANCZOS)
