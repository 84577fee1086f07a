"""A picture and what of it is to be repainted, at its own size and at the model's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcr.errors import DiffCRError
from diffcr.inpainting.images.masks import default_dilation, dilate, resize_mask
from diffcr.inpainting.images.pictures import Picture, read_masks, read_pictures

# What the context encoder sees in place of masked pixels.
GREY = 128


@dataclass(frozen=True)
class Edit:
    """One picture with its mask.

    Attributes:
        picture: At its own size.
        mask: [H, W] bool, what the caller masked.
        dilation: Pixels around the mask that are repainted and blended, too.
        region: [H, W] bool, the mask dilated: outside of it nothing changes.
        working_pixels: [h, w, 3] uint8, the picture at the model's size.
        working_region: [h, w] bool, the region at the model's size.
    """

    picture: Picture
    mask: NDArray[np.bool_]
    dilation: int
    region: NDArray[np.bool_]
    working_pixels: NDArray[np.uint8]
    working_region: NDArray[np.bool_]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is masked."""
        return not self.mask.any()


@dataclass(frozen=True)
class WorkingSize:
    """The size that a model works at.

    Attributes:
        working_side: Longer side of its pictures, in pixels.
        pixels_per_token: Side of a token, in pixels: height and width are multiples of it.
        height: Asked for by the caller; None follows the picture's proportions.
        width: Likewise.
    """

    working_side: int
    pixels_per_token: int
    height: int | None = None
    width: int | None = None

    def of(self, picture: Picture) -> tuple[int, int]:
        """Height and width for a picture. The longer side is the model's, whether the picture is
        smaller or larger, unless the caller asks for another size; a side that is left open keeps
        the proportions as well as whole tokens can."""
        scale = self.working_side / max(picture.height, picture.width)
        if self.height is not None:
            scale = self.height / picture.height
        elif self.width is not None:
            scale = self.width / picture.width
        side = self.pixels_per_token
        rounded = [
            max(round(length * scale / side), 1) * side
            for length in (picture.height, picture.width)
        ]
        return self.height or rounded[0], self.width or rounded[1]


def prepare_edits(
    images: Any, masks: Any, size: WorkingSize, dilation: int | None = None
) -> list[Edit]:
    """Pictures and masks in any form, one edit each; a single one goes with all of the others.

    Args:
        images: As `read_pictures` takes them.
        masks: As `read_masks` takes them.
        size: What the model works at.
        dilation: Pixels around the masks; by default `default_dilation` of each.

    Raises:
        DiffCRError: A picture and its mask differ in size, their numbers do not fit, the pictures
            of a batch need different working sizes, or a size is not whole tokens.
    """
    for name, length in (("height", size.height), ("width", size.width)):
        if length is not None and (length < 1 or length % size.pixels_per_token):
            raise DiffCRError(f"{name} is {length}: give a multiple of {size.pixels_per_token}")
    if dilation is not None and dilation < 0:
        raise DiffCRError(f"dilation is {dilation}: give 0 or more pixels")
    pairs = zip(*broadcast(image=read_pictures(images), mask_image=read_masks(masks)), strict=True)
    edits = [_prepare(picture, mask, size, dilation) for picture, mask in pairs]
    shapes = sorted({edit.working_region.shape for edit in edits})
    if len(shapes) > 1:
        raise DiffCRError(
            f"the pictures of a batch need working sizes {shapes[0]} and {shapes[1]}: "
            "give height and width for all of them, or one picture per call"
        )
    return edits


def _prepare(
    picture: Picture, mask: NDArray[np.bool_], size: WorkingSize, dilation: int | None
) -> Edit:
    check_sizes(picture, mask)
    width_around = default_dilation(mask) if dilation is None else dilation
    region = dilate(mask, width_around)
    height, width = size.of(picture)
    pixels = resize_pixels(picture.pixels, height, width)
    return Edit(picture, mask, width_around, region, pixels, resize_mask(region, height, width))


def check_sizes(picture: Picture, mask: NDArray[np.bool_]) -> None:
    """Raises DiffCRError where a mask [H, W] is not as large as its picture."""
    if mask.shape != (picture.height, picture.width):
        raise DiffCRError(
            f"the mask is {mask.shape[1]} x {mask.shape[0]} pixels, the image {picture.width} x "
            f"{picture.height}: give a mask of the image's size"
        )


def resize_pixels(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """[H, W, 3] at another size, by Lanczos' filter; the same values at the same size."""
    if pixels.shape[:2] == (height, width):
        return pixels
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(resized)


def broadcast(**lists: Sequence[Any]) -> list[list[Any]]:
    """Lists of one length: a single entry goes with each of the other lists' entries.

    Args:
        lists: By the names that messages give them.

    Raises:
        DiffCRError: Lists of several entries are not equally long, or one is empty.
    """
    longest = max(map(len, lists.values()))
    if not all(len(entries) in (1, longest) for entries in lists.values()):
        counts = ", ".join(f"{len(entries)} of {name}" for name, entries in lists.items())
        raise DiffCRError(f"there are {counts}: give one, or equally many")
    return [list(e) * (longest if len(e) == 1 else 1) for e in lists.values()]
