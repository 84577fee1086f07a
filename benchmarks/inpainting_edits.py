"""What the rows of inpainting paint again, and how near to the truth it comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image
from skimage.measure import label, regionprops
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.datasets import load_sample_images

from diffcr.inpainting.images.masks import dilate
from diffcr.inpainting.images.random_masks import draw_mask

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


@dataclass(frozen=True)
class Edit:
    """A true picture, what of it is painted again, and its caption."""

    image: Image.Image
    mask: NDArray[np.bool_]
    caption: str


def boxes_around(objects: NDArray[np.bool_], margin: int) -> NDArray[np.bool_]:
    """A box with a margin around every object, so that the mask does not tell shapes."""
    mask = np.zeros_like(objects)
    for found in regionprops(label(objects)):
        mask[found.slice] = True
    return dilate(mask, margin)


def photograph_edits(count: int, side: int, most_masked: float) -> list[Edit]:
    """Random crops of photographs, with random masks of at most that share and no caption."""
    photographs = [getattr(skimage.data, name)() for name in PHOTOGRAPHS]
    photographs += list(load_sample_images().images)
    edits = []
    for item in range(count):
        random = np.random.default_rng([item, 1])
        pixels = photographs[item % len(photographs)]
        image = random_crop(random, pixels, side)
        mask = draw_mask(random, side)
        while mask.mean() > most_masked:
            mask = draw_mask(random, side)
        edits.append(Edit(image, mask, ""))
    return edits


def random_crop(random: np.random.Generator, pixels: NDArray[np.uint8], side: int) -> Image.Image:
    """A square of at least twice that side, scaled down to it."""
    extent = int(random.integers(2 * side, min(pixels.shape[:2]) + 1))
    top, left = (int(random.integers(0, length - extent + 1)) for length in pixels.shape[:2])
    crop = Image.fromarray(pixels[top : top + extent, left : left + extent])
    return crop.resize((side, side), Image.Resampling.LANCZOS)


def marked(edit: Edit) -> Image.Image:
    """The picture with magenta where it is masked."""
    pixels = np.where(edit.mask[..., None], np.array([255, 0, 255]), np.asarray(edit.image))
    return Image.fromarray(pixels.astype(np.uint8))


def likeness(images: Sequence[Image.Image], edits: Sequence[Edit]) -> dict[str, float]:
    """PSNR and structural similarity to the true pictures under the masks, and whether every pixel
    outside of mask and ring is the one that was given."""
    noise, structure, kept = [], [], True
    for image, edit in zip(images, edits, strict=True):
        made, true, mask = np.asarray(image), np.asarray(edit.image), edit.mask
        noise.append(peak_signal_noise_ratio(true[mask], made[mask], data_range=255))
        _, similarity = structural_similarity(true, made, channel_axis=-1, full=True)
        structure.append(similarity[mask].mean())
        outside = ~dilate(mask, max(mask.shape) // 64)
        kept = kept and np.array_equal(made[outside], true[outside])
    return {
        "psnr_under_mask": float(np.mean(noise)),
        "structural_similarity_under_mask": float(np.mean(structure)),
        "untouched_pixels_equal": kept,
        "masked_share": float(np.mean([edit.mask.mean() for edit in edits])),
        "images": len(images),
    }
