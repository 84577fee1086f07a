"""Putting what was generated into the picture: everything outside of the region stays as it is."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcr.errors import DiffCRError
from diffcr.inpainting.images.edits import Edit
from diffcr.inpainting.images.masks import bounds, dilate, window_sum
from diffcr.inpainting.images.membrane import match_boundary
from diffcr.inpainting.images.pictures import Picture

Blending = Literal["poisson", "feather"]


def check_blending(blending: str) -> None:
    """Raises DiffCRError where there is no such blending."""
    if blending not in get_args(Blending):
        raise DiffCRError(f"blending is {blending!r}: choose from {', '.join(get_args(Blending))}")


def blend(edit: Edit, generated: NDArray[np.uint8], blending: Blending = "poisson") -> Picture:
    """The picture at its own size with the region repainted.

    Under "poisson" the generated colours are first moved to meet the picture's around the region
    (`match_boundary`), at the model's size. Then, as under "feather", what was generated is resized
    to the picture and pasted: whole under the caller's mask, fading over its dilation. A
    transparent picture becomes opaque under the mask.

    Args:
        edit: The picture and its region.
        generated: [h, w, 3], at the model's size.
        blending: "poisson" or "feather".

    Returns:
        The picture; pixels outside of the region are equal to those before.
    """
    if edit.is_empty:
        return edit.picture
    if blending == "poisson":
        generated = match_boundary(generated, edit.working_pixels, edit.working_region)
    # With the dilation once more around it, so that weights fade as they do in the whole picture.
    window = bounds(edit.region, margin=edit.dilation)
    weights = feather_weights(edit.mask[window], edit.dilation)
    pixels = edit.picture.pixels.copy()
    pasted = _resized_part(generated, edit, window)
    mixed = _mixed(pixels[window], pasted, weights)
    inside = edit.region[window]
    pixels[window][inside] = mixed[inside]
    return Picture(pixels, _opaque(edit.picture.alpha, window, weights))


def feather_weights(mask: NDArray[np.bool_], dilation: int) -> NDArray[np.float32]:
    """How much of the generated picture is shown: 1 on the mask, falling to 0 over its dilation.

    A mean over windows of half the dilation, of the mask dilated by the other half, is exactly 1 on
    every masked pixel and 0 outside of the dilated mask.

    Args:
        mask: [H, W].
        dilation: In pixels, at least 0.

    Returns:
        [H, W] in [0, 1].
    """
    radius = dilation // 2
    grown = dilate(mask, dilation - radius)
    area = window_sum(np.ones_like(mask), radius)
    return (window_sum(grown, radius) / area).astype(np.float32)


def _resized_part(
    generated: NDArray[np.uint8], edit: Edit, window: tuple[slice, slice]
) -> NDArray[np.uint8]:
    """The window of the generated picture at the picture's own size."""
    height, width = generated.shape[:2]
    if (height, width) == edit.region.shape:
        return generated[window]
    down, across = height / edit.picture.height, width / edit.picture.width
    rows, columns = window
    box = (columns.start * across, rows.start * down, columns.stop * across, rows.stop * down)
    size = (columns.stop - columns.start, rows.stop - rows.start)
    part = Image.fromarray(generated).resize(size, Image.Resampling.LANCZOS, box=box)
    return np.asarray(part)


def _mixed(
    before: NDArray[np.uint8], after: NDArray[np.uint8], weights: NDArray[np.float32]
) -> NDArray[np.uint8]:
    mixed = np.empty_like(before)
    # Channel by channel: a whole photograph in float32 is four times its size.
    for channel in range(before.shape[2]):
        old, new = (values[..., channel].astype(np.float32) for values in (before, after))
        mixed[..., channel] = np.rint(old + weights * (new - old))
    return mixed


def _opaque(
    alpha: NDArray[np.uint8] | None, window: tuple[slice, slice], weights: NDArray[np.float32]
) -> NDArray[np.uint8] | None:
    if alpha is None:
        return None
    raised = alpha.copy()
    raised[window] = np.maximum(alpha[window], np.rint(255 * weights).astype(np.uint8))
    return raised
