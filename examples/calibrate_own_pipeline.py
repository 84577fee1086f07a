"""A pipeline of your own at half of its cost, without training:
`python examples/calibrate_own_pipeline.py [DIRECTORY or Hub id]`, the embedded one by default.
"""

from __future__ import annotations

import sys

import diffcr
from diffcr.evaluation.generate import generate_images, save_images
from diffcr.hosts.loading import load_pipeline
from diffcr.pretrained import load_default_pipeline

# Like the prompts that the pipeline is for; 8 to 32 are better than two.
PROMPTS = ["a large red circle in the centre on a white background", "a tiny blue star on grey"]
STEPS = 20

pipe = load_pipeline(sys.argv[1]) if len(sys.argv) > 1 else load_default_pipeline()
dense = generate_images(pipe, PROMPTS, seed=1, num_inference_steps=STEPS)

calibration = diffcr.calibrate(pipe, PROMPTS, 0.5, num_inference_steps=STEPS)
for trial in calibration.trials:
    print(
        f"{trial.dense_first_steps} dense steps first: {trial.mean_compression_ratio:.0%} skipped, "
        f"{trial.error:.3f} from the dense latents, "
        f"{trial.seconds / calibration.dense_seconds:.2f} of the time"
    )
print(diffcr.summary(pipe))

half = generate_images(pipe, PROMPTS, seed=1, num_inference_steps=STEPS)
save_images(dense, "images", "dense")
print(*save_images(half, "images", "half"))
# Later, on the bare pipeline: diffcr.load(pipe, "half")
print(diffcr.save(pipe, "half"))
