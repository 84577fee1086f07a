"""What the rows of inpainting paint again, a set that one is trained on, and how near to the truth
a picture comes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image
from skimage.color import gray2rgb
from skimage.measure import label, regionprops
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.datasets import load_sample_images

from diffcr.files import replacing_directory
from diffcr.inpainting.example import Example
from diffcr.inpainting.images.masks import default_dilation, dilate
from diffcr.inpainting.images.random_masks import draw_mask
from diffcr.scenes import Scene, ScenesDataset

PAINTED_AGAIN = ("astronaut", "chelsea", "coffee", "rocket")
TRAINED_ON = ("brick", "camera", "coins", "grass", "gravel", "hubble_deep_field", "moon", "retina")


def scene_edit(scene: Scene, margin: int) -> Example:
    """A box with a margin around every object, so that the mask does not tell shapes."""
    mask = np.zeros_like(scene.mask)
    for found in regionprops(label(scene.mask)):
        mask[found.slice] = True
    return Example(scene.image, dilate(mask, margin), scene.caption)


def photograph_edits(count: int, side: int, most_masked: float) -> list[Example]:
    """Random crops of photographs, with random masks of at most that share and no caption."""
    photographs = [getattr(skimage.data, name)() for name in PAINTED_AGAIN]
    photographs += load_sample_images().images
    edits = []
    for item in range(count):
        random = np.random.default_rng([item, 1])
        image = _random_crop(random, photographs[item % len(photographs)], side)
        mask = draw_mask(random, side)
        while mask.mean() > most_masked:
            mask = draw_mask(random, side)
        edits.append(Example(image, mask, ""))
    return edits


def write_scenes_and_photographs(folder: Path, count: int, side: int) -> None:
    """An imagefolder of `count` squares of `side` pixels: scenes with their captions, in turns with
    crops of photographs without any. What is there already stays."""
    if folder.exists():
        return
    photographs = [getattr(skimage.data, name)() for name in TRAINED_ON]
    photographs += skimage.data.stereo_motorcycle()[:2]
    scenes = ScenesDataset("train", size=(count + 1) // 2, resolution=side)
    lines = []
    with replacing_directory(folder) as directory:
        for item in range(count):
            if item % 2:
                pixels = photographs[item // 2 % len(photographs)]
                pixels = gray2rgb(pixels) if pixels.ndim == 2 else pixels
                image, caption = _random_crop(np.random.default_rng([item, 2]), pixels, side), ""
            else:
                scene = scenes[item // 2]
                image, caption = scene.image, scene.caption
            image.save(directory / f"{item:05d}.png")
            lines.append(json.dumps({"file_name": f"{item:05d}.png", "text": caption}) + "\n")
        (directory / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")


def _random_crop(random: np.random.Generator, pixels: NDArray[np.uint8], side: int) -> Image.Image:
    """A square of at least twice that side, scaled down to it."""
    extent = int(random.integers(2 * side, min(pixels.shape[:2]) + 1))
    top, left = (int(random.integers(0, length - extent + 1)) for length in pixels.shape[:2])
    crop = Image.fromarray(pixels[top : top + extent, left : left + extent])
    return crop.resize((side, side), Image.Resampling.LANCZOS)


def marked(edit: Example) -> Image.Image:
    """The picture with magenta where it is masked."""
    return Image.composite(
        Image.new("RGB", edit.image.size, "magenta"), edit.image, Image.fromarray(edit.mask)
    )


def likeness(images: Sequence[Image.Image], edits: Sequence[Example]) -> dict[str, float]:
    """PSNR and structural similarity to the true pictures under the masks, and whether every pixel
    outside of the dilated masks is the one that was given."""
    noise, structure, kept = [], [], True
    for image, edit in zip(images, edits, strict=True):
        made, true, mask = np.asarray(image), np.asarray(edit.image), edit.mask
        noise.append(peak_signal_noise_ratio(true[mask], made[mask], data_range=255))
        _, similarity = structural_similarity(true, made, channel_axis=-1, full=True)
        structure.append(similarity[mask].mean())
        outside = ~dilate(mask, default_dilation(mask))
        kept = kept and np.array_equal(made[outside], true[outside])
    return {
        "psnr_under_mask": float(np.mean(noise)),
        "structural_similarity_under_mask": float(np.mean(structure)),
        "untouched_pixels_equal": kept,
        "masked_share": float(np.mean([edit.mask.mean() for edit in edits])),
        "images": len(images),
    }
