"""A small folder of captioned photographs from pictures inside scikit-learn, scikit-image and
matplotlib, in the Hub's imagefolder convention: `python examples/make_photo_folder.py photos`.

Then: `diffcr train scenes-diffcr-lt --data photos --steps 20`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.cbook
import numpy as np
import skimage.data
from PIL import Image
from sklearn.datasets import load_sample_image

CAPTIONS = {
    "astronaut": "a woman in an orange space suit in front of a flag",
    "camera": "a man with a camera on a lawn in black and white",
    "cat": "a ginger cat looking to the side",
    "coffee": "a cup of coffee with a spoon on a table",
    "rocket": "a rocket on its launch pad at dusk",
    "brick": "a wall of bricks",
    "grass": "grass seen from above",
    "gravel": "gravel seen from above",
}
SAMPLES = {
    "china": "a temple with a curved roof behind trees",
    "flower": "a pink flower in front of green leaves",
}


def pictures() -> dict[str, tuple[np.ndarray, str]]:
    """Pixels and captions by name."""
    found = {name: (getattr(skimage.data, name)(), text) for name, text in CAPTIONS.items()}
    found |= {name: (load_sample_image(f"{name}.jpg"), text) for name, text in SAMPLES.items()}
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        portrait = np.asarray(Image.open(file).convert("RGB"))
    found["hopper"] = (portrait, "a portrait of a woman in a naval uniform")
    return found


def make_folder(folder: Path) -> int:
    """Write PNG files and metadata.jsonl; returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, (pixels, caption) in pictures().items():
        Image.fromarray(pixels).convert("RGB").save(folder / f"{name}.png")
        lines.append(json.dumps({"file_name": f"{name}.png", "text": caption}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "photos")
    print(f"{make_folder(target)} pictures in {target}")
