"""How good the embedded pipeline is: `python benchmarks/pretrained.py BUILD [--captions N]`.

BUILD is the directory of `make pretrain`, whose records become part of this one. Measured: the
judge on real pictures and on the autoencoder's reconstructions of them, the guidance scale chosen
on validation captions, and with it the caption accuracy and the judge's Frechet distance on test
captions. Also writes a picture of the first 64 test captions.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from diffcr.evaluation.evaluate import evaluate
from diffcr.evaluation.options import EvaluationOptions, Subjects
from diffcr.hosts.loading import load_pipeline
from diffcr.pretraining.build import read_records
from diffcr.records.record import make_record, write_record
from diffcr.scenes import Scene, ScenesDataset
from diffcr.scenes.judge import attribute_accuracy, load_judge
from diffcr.training.data.encoding import encode_images

ROOT = Path(__file__).parents[1]
GUIDANCE_SCALES = (1.5, 2.0, 3.0, 4.0, 5.0)
_OPTIONS = EvaluationOptions(batch_size=32)
_SHOWN = 64


@torch.no_grad()
def reconstructions(pipe: Any, scenes: Sequence[Scene]) -> list[Image.Image]:
    """Pictures of scenes through the pipeline's autoencoder."""
    rebuilt = []
    for start in range(0, len(scenes), 50):
        latents = encode_images(pipe, [scene.image for scene in scenes[start : start + 50]])
        decoded = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
        rebuilt += pipe.image_processor.postprocess(decoded)
    return rebuilt


def measure(
    build: Path, captions: int, validation_captions: int
) -> tuple[dict[str, Any], list[Image.Image]]:
    """Everything that the record says of quality, and the test images."""
    judge, pipe = load_judge(build / "judge"), load_pipeline(build / "scenes")
    validation = Subjects.of_scenes(list(ScenesDataset("validation", size=validation_captions)))
    scenes = list(ScenesDataset("test", size=captions))
    attributes = [scene.attributes for scene in scenes]
    pictures = {
        "real": [scene.image for scene in scenes],
        "reconstructed": reconstructions(pipe, scenes),
    }

    def at(scale: float, subjects: Subjects) -> Any:
        options = replace(_OPTIONS, guidance_scale=scale)
        return evaluate(pipe, subjects, options, judge).models["dense"]

    accuracies = {
        scale: at(scale, validation).quality.caption_accuracy.mean for scale in GUIDANCE_SCALES
    }
    chosen = max(accuracies, key=accuracies.__getitem__)
    tested = at(chosen, Subjects.of_scenes(scenes))
    results = {
        "judge": {
            name: vars(attribute_accuracy(judge, images, attributes))
            for name, images in pictures.items()
        },
        "validation_caption_accuracy_by_guidance_scale": accuracies,
        "guidance_scale": chosen,
        "quality": {"dense": tested.quality.to_json_dict()},
    }
    return results, tested.images[:_SHOWN]


def tile(images: Sequence[Image.Image], columns: int = 8) -> Image.Image:
    """Pictures of one size in rows, with a thin white border."""
    width, height = (side + 4 for side in images[0].size)
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for index, image in enumerate(images):
        sheet.paste(image, (index % columns * width, index // columns * height))
    return sheet


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", type=Path)
    parser.add_argument("--captions", type=int, default=1000)
    parser.add_argument("--validation-captions", type=int, default=128)
    arguments = parser.parse_args()
    training = read_records(arguments.build)
    results, images = measure(arguments.build, arguments.captions, arguments.validation_captions)
    configuration = {
        "captions": arguments.captions,
        "validation_captions": arguments.validation_captions,
        "num_inference_steps": _OPTIONS.num_inference_steps,
    }
    seeds = {"images": _OPTIONS.seed, "build": training["autoencoder"]["settings"]["seed"]}
    results = {"training": training, **results}
    record = make_record("pretraining", configuration, results, seeds=seeds)
    print(write_record(record, ROOT / "benchmarks" / "results" / "pretraining.json"))
    tile(images).save(ROOT / "docs" / "images" / "pretrained.png")


if __name__ == "__main__":
    main()
