"""What the judge says of a pipeline's pictures of scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from diffcr.evaluation.metrics.distances import frechet_distance
from diffcr.scenes import Scene
from diffcr.scenes.judge import (
    AttributeAccuracy,
    SceneJudge,
    attribute_accuracy,
    judge_features,
)


@dataclass(frozen=True)
class SceneQuality:
    """Quality of generated pictures of scenes.

    Attributes:
        caption_accuracy: Share of attributes that a picture shows as its caption says.
        frechet_distance: Between the judge's features of generated and of real pictures with the
            same captions, comparable only at the same number of pictures; None below as many
            pictures as features, where the covariances are not determined.
    """

    caption_accuracy: AttributeAccuracy
    frechet_distance: float | None

    def to_json_dict(self) -> dict[str, Any]:
        """Values by name."""
        accuracy = self.caption_accuracy
        return {
            "caption_accuracy": accuracy.mean,
            "caption_accuracy_per_attribute": dict(accuracy.per_attribute),
            "caption_exact_match": accuracy.exact_match,
            "judge_frechet_distance": self.frechet_distance,
            "images": accuracy.count,
        }


def measure_quality(
    judge: SceneJudge, images: Sequence[Image.Image], scenes: Sequence[Scene]
) -> SceneQuality:
    """Judge pictures that were generated from the captions of `scenes`, in their order.

    Args:
        judge: Its resolution is the pictures'.
        images: RGB.
        scenes: What the captions belong to; the Frechet distance is to their own pictures.
    """
    assert len(images) == len(scenes), "one scene per picture"
    pictures = _at_resolution(images, judge.config.resolution)
    accuracy = attribute_accuracy(judge, pictures, [scene.attributes for scene in scenes])
    if len(pictures) <= judge.config.features:
        return SceneQuality(accuracy, None)
    real = judge_features(
        judge, _at_resolution([scene.image for scene in scenes], judge.config.resolution)
    )
    return SceneQuality(accuracy, frechet_distance(judge_features(judge, pictures), real))


def _at_resolution(images: Sequence[Image.Image], side: int) -> list[Image.Image]:
    size = (side, side)
    return [
        image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)
        for image in images
    ]
