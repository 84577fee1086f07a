"""Methods side by side, same prompts and noise: `python examples/compare_methods.py [DIRECTORY]`.

Times are of single runs, for a first look; `diffcr bench` measures in turns, and `diffcr eval`
writes a report.
"""

from __future__ import annotations

import sys
import time

import numpy as np

import diffcr
from diffcr.evaluation.generate import generate_images, save_images
from diffcr.hosts.loading import load_pipeline
from diffcr.pretrained import load_default_pipeline

PROMPTS = ["a large red circle in the centre on a white background", "a tiny blue star on grey"]
METHODS = {
    "dense": None,
    "reuse of steps": diffcr.ReuseConfig(0.5),
    "reuse of tokens": diffcr.ReuseConfig(0.5, granularity="tokens"),
    "token merging": diffcr.ToMeConfig(0.3),
    "attention-driven pruning": diffcr.ATEDMConfig(0.3),
}

pipe = load_pipeline(sys.argv[1]) if len(sys.argv) > 1 else load_default_pipeline()
generate_images(pipe, PROMPTS, num_inference_steps=2)  # what the first call sets up is not timed
reference = np.zeros(0)
for name, config in METHODS.items():
    if config is not None:
        diffcr.attach(pipe, config)
    started = time.perf_counter()
    images = generate_images(pipe, PROMPTS, seed=1)
    seconds = time.perf_counter() - started
    pixels = np.stack([np.asarray(image, dtype=float) for image in images])
    reference = reference if reference.size else pixels
    print(f"{name}: {seconds:.2f} s, {abs(pixels - reference).mean():.2f} of 255 from dense")
    save_images(images, "images", name.replace(" ", "-"))
    if config is not None:
        diffcr.detach(pipe)
