"""One pipeline at several speeds: `python examples/dial.py [DIRECTORY or Hub id]`.

The budget is the share of the dense model's tokens that a sampling run may compute. It can be set
between any two runs; nothing is trained and nothing is loaded again.
"""

from __future__ import annotations

import sys
import time

import diffcr
from diffcr.evaluation.generate import generate_images, save_images
from diffcr.hosts.loading import load_pipeline
from diffcr.pretrained import load_default_pipeline

PROMPTS = ["a large red circle in the centre on a white background"]

pipe = load_pipeline(sys.argv[1]) if len(sys.argv) > 1 else load_default_pipeline()
# Or what `diffcr.calibrate` saved: reuser = diffcr.load(pipe, "half").
reuser = diffcr.attach(pipe, diffcr.ReuseConfig(0.5))
for budget in (1.0, 0.7, 0.5):
    reuser.set_budget(budget)
    started = time.perf_counter()
    images = generate_images(pipe, PROMPTS, seed=1)
    seconds = time.perf_counter() - started
    (path,) = save_images(images, "images", f"budget-{budget:.0%}".rstrip("%"))
    print(f"budget {budget:.0%}: {seconds:.2f} s, {path}")
