"""A part of a picture painted again: `python examples/inpaint.py`.

Only masked tokens are generated, so that a step costs what the mask's area costs.
"""

from __future__ import annotations

import sys
import time

import torch

import diffcr
from diffcr.inpainting.example import make_example
from diffcr.pretrained import load_default_inpainting

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 20
# A picture of the project's scenes, which are all that the embedded pipeline knows. Of your own
# model: diffcr.inpainting.LazyInpaintPipeline.from_pretrained("DIRECTORY").
example = make_example()
pipe = load_default_inpainting()
# Half of the steps reuse an earlier one's work.
diffcr.attach(pipe, diffcr.ReuseConfig(0.5))

for seed, stroke in enumerate(("first", "second")):
    started = time.perf_counter()
    result = pipe(
        example.prompt,
        image=example.image,
        mask_image=example.mask,
        num_inference_steps=steps,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(seed),
    )
    # The second finds the picture's context in the cache.
    print(f"{stroke} stroke: {time.perf_counter() - started:.2f} s")
    result.images[0].save(f"inpainted-{stroke}.png")
print(f"{example.mask.mean():.1%} of the picture was masked, painted as {example.prompt!r}")
