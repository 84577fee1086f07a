"""The second set that inpainting is trained on: scenes and crops of photographs, half and half."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import skimage.data
from inpainting_edits import random_crop
from skimage.color import gray2rgb
from tqdm.auto import tqdm

from diffcr.files import replacing_directory
from diffcr.scenes import ScenesDataset

# None of those that `inpainting_edits` asks to paint again.
PHOTOGRAPHS = (
    "brick",
    "camera",
    "coins",
    "grass",
    "gravel",
    "hubble_deep_field",
    "moon",
    "retina",
)


def write_scenes_and_photographs(folder: Path, count: int, side: int) -> None:
    """An imagefolder of `count` squares of `side` pixels: scenes with their captions, in turns with
    crops of photographs without any. What is there already stays."""
    if folder.exists():
        return
    photographs = [*(getattr(skimage.data, name)() for name in PHOTOGRAPHS)]
    photographs += [*skimage.data.stereo_motorcycle()[:2]]
    photographs = [gray2rgb(p) if p.ndim == 2 else p for p in photographs]
    scenes = ScenesDataset("train", size=(count + 1) // 2, resolution=side)
    lines = []
    with replacing_directory(folder) as directory:
        for item in tqdm(range(count), desc="writing pictures"):
            if item % 2 == 0:
                scene = scenes[item // 2]
                image, caption = scene.image, scene.caption
            else:
                random = np.random.default_rng([item, 2])
                pixels = photographs[(item // 2) % len(photographs)]
                image, caption = random_crop(random, pixels, side), ""
            name = f"{item:05d}.png"
            image.save(directory / name)
            lines.append(json.dumps({"file_name": name, "text": caption}))
        (directory / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
