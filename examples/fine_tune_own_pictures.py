"""DiffCR fine-tuned on a folder of pictures: `python examples/fine_tune_own_pictures.py FOLDER
[STEPS]`.

FOLDER holds pictures and a metadata.jsonl with `file_name` and `text`, a line a picture;
`examples/make_photo_folder.py` writes one to try. What the recipe says with keys, in Python.
"""

from __future__ import annotations

import sys

import diffcr
from diffcr.evaluation.generate import generate_images, save_images
from diffcr.pretrained import load_default_pipeline
from diffcr.training.job import run_recipe
from diffcr.training.recipe import DataRecipe, OptimizerRecipe, RatioLossRecipe, TrainingRecipe

folder, steps = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 200
recipe = TrainingRecipe(
    name="own-pictures",
    # Another pipeline than the embedded one: model="DIRECTORY or Hub id", its size and text length.
    data=DataRecipe(source=folder, resolution=96, max_sequence_length=48),
    # One region, since few steps are too few to learn ratios for each of several.
    method=diffcr.DiffCRConfig(target_compression_ratio=0.2, timestep_regions=1),
    finetune="lora",
    lora_rank=16,
    steps=steps,
    batch_size=8,
    distillation_weight=1.0,
    optimizer=OptimizerRecipe(learning_rate=5e-4, ratio_learning_rate=5e-3),
    # The target is to be met at 0.3 of the steps; from 0.6 on ratios stay.
    ratio_loss=RatioLossRecipe(ramp=0.3, settle=0.6),
)
result = run_recipe(recipe, "runs/own-pictures")
print(f"{result.directory}: {result.mean_compression_ratio:.1%} of the tokens skipped")

pipe = load_default_pipeline()
diffcr.load(pipe, "runs/own-pictures")
print(diffcr.summary(pipe))
images = generate_images(pipe, ["a cup of coffee with a spoon on a table"])
print(*save_images(images, "images", "own-pictures"))
