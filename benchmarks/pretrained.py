"""How good the embedded pipeline is: `python benchmarks/pretrained.py BUILD [--captions N]`.

BUILD is the directory of `make pretrain`, whose records become part of this one. Measured: the
judge on real pictures and on the autoencoder's reconstructions of them, the guidance scale chosen
on validation captions, and with it the caption accuracy and the judge's Frechet distance on test
captions. Also writes a picture of the first 64 test captions.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from diffcr.evaluation.generate import generate_images
from diffcr.evaluation.quality import SceneQuality, measure_quality
from diffcr.hosts.loading import load_pipeline
from diffcr.pretraining.build import read_records
from diffcr.records.record import make_record, write_record
from diffcr.scenes import Scene, ScenesDataset
from diffcr.scenes.judge import attribute_accuracy, load_judge
from diffcr.training.data.encoding import encode_images

ROOT = Path(__file__).parents[1]
GUIDANCE_SCALES = (1.5, 2.0, 3.0, 4.0, 5.0)


class _Measurement:
    def __init__(self, build: Path) -> None:
        self.judge = load_judge(build / "judge")
        self.pipe = load_pipeline(build / "scenes")

    def quality(self, scenes: list[Scene], guidance_scale: float) -> SceneQuality:
        self.images = generate_images(
            self.pipe,
            [scene.caption for scene in scenes],
            guidance_scale=guidance_scale,
            batch_size=32,
            progress=f"guidance {guidance_scale:g}",
        )
        return measure_quality(self.judge, self.images, scenes)

    @torch.no_grad()
    def reconstructions(self, scenes: list[Scene]) -> list[Image.Image]:
        vae, rebuilt = self.pipe.vae, []
        for start in range(0, len(scenes), 50):
            latents = encode_images(
                self.pipe, [scene.image for scene in scenes[start : start + 50]]
            )
            decoded = vae.decode(latents / vae.config.scaling_factor).sample
            rebuilt += self.pipe.image_processor.postprocess(decoded)
        return rebuilt


def measure(measurement: _Measurement, captions: int, validation_captions: int) -> dict[str, Any]:
    """Everything that the record says of quality; the test images stay in `measurement`."""
    validation, test = (
        [data[i] for i in range(len(data))]
        for data in (
            ScenesDataset("validation", size=validation_captions),
            ScenesDataset("test", size=captions),
        )
    )
    attributes = [scene.attributes for scene in test]
    judged = {
        "real": [scene.image for scene in test],
        "reconstructed": measurement.reconstructions(test),
    }
    scales = {
        scale: measurement.quality(validation, scale).caption_accuracy.mean
        for scale in GUIDANCE_SCALES
    }
    chosen = max(scales, key=scales.__getitem__)
    quality = measurement.quality(test, chosen)
    return {
        "judge": {
            name: vars(attribute_accuracy(measurement.judge, images, attributes))
            for name, images in judged.items()
        },
        "validation_caption_accuracy_by_guidance_scale": scales,
        "guidance_scale": chosen,
        "quality": quality.to_json_dict(),
    }


def tile(images: list[Image.Image], columns: int = 8) -> Image.Image:
    """Pictures of one size in rows, with a thin white border."""
    width, height = (side + 4 for side in images[0].size)
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for index, image in enumerate(images):
        sheet.paste(image, (index % columns * width, index // columns * height))
    return sheet


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", type=Path)
    parser.add_argument("--captions", type=int, default=1000)
    parser.add_argument("--validation-captions", type=int, default=128)
    arguments = parser.parse_args()
    measurement = _Measurement(arguments.build)
    results = {
        "training": read_records(arguments.build),
        **measure(measurement, arguments.captions, arguments.validation_captions),
    }
    configuration = {
        "captions": arguments.captions,
        "validation_captions": arguments.validation_captions,
        "num_inference_steps": 20,
    }
    record = make_record(
        "pretraining",
        configuration,
        results,
        seeds={"images": 0, "build": results["training"]["autoencoder"]["settings"]["seed"]},
    )
    print(write_record(record, ROOT / "benchmarks" / "results" / "pretraining.json"))
    tile(measurement.images[:64]).save(ROOT / "docs" / "images" / "pretrained.png")
