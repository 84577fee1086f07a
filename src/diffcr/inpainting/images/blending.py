"""Putting what was generated into the picture: everything outside of the region stays as it is.

Poisson blending (Perez, Gangnet & Blake, "Poisson Image Editing", 2003) is a membrane, the smooth
correction that makes two pictures meet at an edge: with the gradients of the pasted picture as the
guide, its blend is that picture plus the solution of Laplace's equation with the difference of both
pictures on the boundary. Solved by conjugate gradients, from coarse grids to fine ones (cascadic
multigrid, Bornemann & Deuflhard 1996), in numpy alone: OpenCV's `seamlessClone` would be a
dependency for this one call.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcr.errors import DiffCRError
from diffcr.inpainting.images.edits import Edit
from diffcr.inpainting.images.masks import bounds, dilate, window_sum
from diffcr.inpainting.images.pictures import Picture

Blending = Literal["poisson", "feather"]
Floats = NDArray[np.float32]
_COARSEST = 8
_MOST_ITERATIONS = 200
# Of the residual, in grey levels.
_TOLERANCE = 0.02
_TINY = np.float32(1e-30)


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


def match_boundary(
    painted: NDArray[np.uint8], original: NDArray[np.uint8], region: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """The painted picture with its colours in the region moved to meet the original around it.

    Args:
        painted: [H, W, 3].
        original: [H, W, 3].
        region: [H, W], where `painted` is to be pasted; where it is the whole picture, there is no
            boundary to meet.

    Returns:
        [H, W, 3], equal to `painted` outside of the region.
    """
    if region.all() or not region.any():
        return painted
    # One pixel more on each side holds the boundary.
    window = bounds(region, margin=1)
    inside = region[window]
    gap = original[window].astype(np.float32) - painted[window]
    corrected = painted.copy()
    moved = painted[window] + solve_membrane(gap, inside)
    limited = np.clip(np.rint(moved), 0, 255).astype(np.uint8)
    corrected[window] = np.where(inside[..., None], limited, painted[window])
    return corrected


def solve_membrane(values: Floats, inside: NDArray[np.bool_]) -> Floats:
    """Laplace's equation inside, the given values outside; no flow over the picture's border.

    Args:
        values: [H, W, C], read outside of the region alone.
        inside: [H, W], the region; at least one pixel is not in it.

    Returns:
        [H, W, C].
    """
    known = np.where(inside[..., None], np.float32(0), values)
    if min(inside.shape) <= _COARSEST or not inside.any():
        return _conjugate_gradients(known, np.zeros_like(known), inside)
    coarse_values, coarse_inside = _halve(known, inside)
    coarse = solve_membrane(coarse_values, coarse_inside)
    guess = coarse.repeat(2, axis=0).repeat(2, axis=1)[: inside.shape[0], : inside.shape[1]]
    return _conjugate_gradients(known, guess * inside[..., None], inside)


def _halve(known: Floats, inside: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.bool_]]:
    """A grid of half the size: the mean of what is known in each cell; unknown where nothing is."""
    height, width = (-(-length // 2) for length in inside.shape)
    padding = [(0, 2 * height - inside.shape[0]), (0, 2 * width - inside.shape[1])]
    outside = np.pad(~inside, padding).reshape(height, 2, width, 2)
    cells = np.pad(known, [*padding, (0, 0)]).reshape(height, 2, width, 2, -1)
    counts = outside.sum(axis=(1, 3)).astype(np.float32)
    means = cells.sum(axis=(1, 3)) / np.maximum(counts, 1)[..., None]
    return means, counts == 0


def _conjugate_gradients(known: Floats, guess: Floats, inside: NDArray[np.bool_]) -> Floats:
    """`known` with the region filled; every channel is a system of its own."""
    within = inside[..., None].astype(np.float32)
    neighbours = _neighbour_sum(np.ones(within.shape, dtype=np.float32))

    def apply(field: Floats) -> Floats:
        return (neighbours * field - _neighbour_sum(field)) * within

    solution = guess
    residual: Floats = _neighbour_sum(known) * within - apply(solution)
    direction = residual
    energy = _dots(residual, residual)
    for _ in range(_MOST_ITERATIONS):
        if np.abs(residual).max() <= _TOLERANCE:
            break
        image = apply(direction)
        step = _quotients(energy, _dots(direction, image))
        solution = solution + step * direction
        residual = residual - step * image
        previous, energy = energy, _dots(residual, residual)
        direction = residual + _quotients(energy, previous) * direction
    return known + solution


def _dots(left: Floats, right: Floats) -> Floats:
    products: Floats = np.einsum("hwc,hwc->c", left, right)
    return products


def _quotients(left: Floats, right: Floats) -> Floats:
    quotients: Floats = np.divide(left, np.maximum(right, _TINY), dtype=np.float32)
    return quotients


def _neighbour_sum(field: Floats) -> Floats:
    """Sum of the up to four neighbours of each pixel, [H, W, C]."""
    total = np.zeros_like(field)
    total[1:] += field[:-1]
    total[:-1] += field[1:]
    total[:, 1:] += field[:, :-1]
    total[:, :-1] += field[:, 1:]
    return total
