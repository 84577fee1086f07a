"""Masks to train with: strokes, boxes, objects with a margin, whole pictures.

Lazy Diffusion trains with masks of objects, dilated at random (Nitzan et al., arXiv 2404.12382);
what people paint is less tidy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from diffcr.inpainting.images.masks import dilate, masked_tokens

# Strokes, boxes, objects, whole pictures; without an object to mask its share goes to the others.
_SHARES = {"stroke": 0.3, "box": 0.25, "object": 0.35, "whole": 0.1}
_COUNTS = (1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)


def draw_mask(
    random: np.random.Generator, side: int, objects: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """A mask [side, side] with at least one masked pixel.

    Args:
        random: Of every choice.
        side: In pixels.
        objects: [side, side], where the picture's objects are; None where nobody knows.
    """
    shares = dict(_SHARES)
    if objects is None or not objects.any():
        del shares["object"]
    weights = np.array([*shares.values()])
    kind = random.choice([*shares], p=weights / weights.sum())
    if kind == "object":
        assert objects is not None
        return dilate(objects, int(random.integers(0, side // 10 + 1)))
    if kind == "stroke":
        return _stroke(random, side)
    if kind == "box":
        return _box(random, side)
    return np.ones((side, side), dtype=bool)


def _box(random: np.random.Generator, side: int) -> NDArray[np.bool_]:
    height, width = random.integers(max(side // 6, 1), 3 * side // 4, size=2)
    top, left = random.integers(0, side - height), random.integers(0, side - width)
    mask = np.zeros((side, side), dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def _stroke(random: np.random.Generator, side: int) -> NDArray[np.bool_]:
    canvas = Image.new("1", (side, side))
    brush = ImageDraw.Draw(canvas)
    width = int(random.integers(max(side // 16, 1), max(side // 5, 2)))
    place = random.uniform(0.15 * side, 0.85 * side, size=2)
    direction = random.uniform(0, 2 * np.pi)
    for _ in range(random.integers(2, 7)):
        direction += random.normal(0, 0.8)
        length = random.uniform(0.1, 0.35) * side
        towards = place + length * np.array([np.cos(direction), np.sin(direction)])
        target = np.clip(towards, 0, side - 1)
        brush.line([*place, *target], fill=1, width=width)
        for x, y in (place, target):
            half = width / 2
            brush.ellipse([x - half, y - half, x + half, y + half], fill=1)
        place = target
    return np.asarray(canvas)


def grow_region(mask: NDArray[np.bool_], pixels_per_token: int) -> NDArray[np.bool_]:
    """The mask and whole tokens next to it, until one of a few numbers of tokens is masked.

    Samples with equally many masked tokens are one tensor, and one compiled graph.

    Args:
        mask: [H, W], multiples of `pixels_per_token`, at least one pixel masked.
        pixels_per_token: Side of a token.

    Returns:
        [H, W]; it masks 1/16, 1/8, 1/4, 3/8, 1/2, 3/4 or all of the tokens, rounded up.
    """
    tokens = masked_tokens(mask, pixels_per_token).numpy()
    counts = [int(np.ceil(share * tokens.size)) for share in _COUNTS]
    count = next(count for count in counts if count >= tokens.sum())
    grown, wider = tokens, dilate(tokens, 1)
    while wider.sum() < count:
        grown, wider = wider, dilate(wider, 1)
    extra = grown & ~tokens
    extra.flat[np.flatnonzero(wider & ~grown)[: count - grown.sum()]] = True
    squares = extra.repeat(pixels_per_token, axis=0).repeat(pixels_per_token, axis=1)
    region: NDArray[np.bool_] = mask | squares
    return region
