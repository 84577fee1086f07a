"""What an evaluation measures, and on what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from diffcr.errors import DiffCRError
from diffcr.scenes import Scene
from diffcr.training.data.encoding import EncodedDataset


@dataclass(frozen=True)
class EvaluationOptions:
    """How much is measured.

    Attributes:
        seed: Of the first image, of the held-out noise.
        num_inference_steps: Denoising steps, 1 or more.
        guidance_scale: Of classifier-free guidance, 0 or more; at most 1 is none.
        height: Of the images in pixels, the pipeline's own by default.
        width: Of the images in pixels, the pipeline's own by default.
        image_precision: "bf16" generates images under autocast, "no" in the model's own dtype.
        batch_size: Images per call of the pipeline.
        saved_images: Images of each model that are written beside the record.
        beside_dense: Whether the dense model is measured beside the one that a method is attached
            to.
        held_out_regions: Equal parts of the timesteps; those of the model's ratios by default, 4
            without ratios.
        held_out_samples: Per region.
        latency_batch_size: Images per timed call.
        denoiser_repeats: Timed pairs of forwards, 0 for none; from 6 on up to four times as many
            where they scatter.
        pipeline_repeats: Timed pairs of whole generations, likewise.
        map_timesteps: Noise levels of the router maps on a scene; as many denoising steps are
            mapped for a prompt of one's own. No maps without any.
        router_scenes: Scenes that the routers' scores are held against the objects of, 0 for none.
    """

    seed: int = 0
    num_inference_steps: int = 20
    guidance_scale: float = 4.5
    height: int | None = None
    width: int | None = None
    image_precision: str = "no"
    batch_size: int = 16
    saved_images: int = 8
    beside_dense: bool = True
    held_out_regions: int | None = None
    held_out_samples: int = 128
    latency_batch_size: int = 8
    denoiser_repeats: int = 15
    pipeline_repeats: int = 6
    map_timesteps: tuple[int, ...] = (950, 700, 450, 200, 50)
    router_scenes: int = 32

    @property
    def size(self) -> dict[str, Any]:
        """Height and width, as arguments."""
        return {"height": self.height, "width": self.width}

    @property
    def generation(self) -> dict[str, Any]:
        """Arguments of `generate_images` that decide what an image is."""
        return {
            "seed": self.seed,
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": self.guidance_scale,
            **self.size,
        }


@dataclass(frozen=True)
class Subjects:
    """What is measured on; each part that is there adds its section to the results.

    Attributes:
        prompts: Images are generated from.
        scenes: What the prompts are captions of, in their order; empty for prompts of one's own.
        held_out: Encoded pictures that were not trained on.
        dense_images: What the bare pipeline generates from the prompts with the same options, where
            that is known already; else it is generated.
        compressed_images: Of the pipeline with its method, likewise.

    Raises:
        DiffCRError: The scenes are not the prompts'.
    """

    prompts: Sequence[str]
    scenes: Sequence[Scene] = ()
    held_out: EncodedDataset | None = None
    dense_images: Sequence[Image.Image] | None = None
    compressed_images: Sequence[Image.Image] | None = None

    def __post_init__(self) -> None:
        if self.scenes and len(self.scenes) != len(self.prompts):
            raise DiffCRError(
                f"there are {len(self.prompts)} prompts and {len(self.scenes)} scenes: "
                "give one scene per prompt, or none"
            )

    @classmethod
    def of_scenes(cls, scenes: Sequence[Scene], held_out: EncodedDataset | None = None) -> Subjects:
        """Scenes, by their captions."""
        return cls([scene.caption for scene in scenes], scenes, held_out)
