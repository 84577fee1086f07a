"""The same prompt and seed, dense and compressed: `python examples/compare_images.py [PROMPT]`."""

from __future__ import annotations

import sys

import diffcr
from diffcr.evaluation.generate import generate_images, save_images
from diffcr.pretrained import default_checkpoint_path, load_default_pipeline

prompt = (
    sys.argv[1]
    if len(sys.argv) > 1
    else "a large red circle in the centre on a plain white background"
)
pipe = load_default_pipeline()
dense = generate_images(pipe, [prompt], seed=1)
diffcr.load(pipe, default_checkpoint_path())
compressed = generate_images(pipe, [prompt], seed=1)
print(*save_images(dense, "images", "dense"), *save_images(compressed, "images", "compressed"))
