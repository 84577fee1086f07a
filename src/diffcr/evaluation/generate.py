"""Images of a list of prompts, reproducible one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from diffcr.errors import DiffCRError
from diffcr.evaluation.modes import evaluating
from diffcr.files import replacing_file
from diffcr.hosts import find_transformer
from diffcr.hosts.sampling import (
    OutputSize,
    call_options,
    guidance_options,
    without_progress,
)

# Models of diffusers are trained on so many timesteps.
MOST_STEPS = 1000
_LARGEST_GUIDANCE = 1000


@dataclass(frozen=True)
class Generation:
    """How images are made from prompts.

    Attributes:
        seed: Of the first image; image i has `seed + i`.
        num_inference_steps: Denoising steps, 1 or more.
        guidance_scale: Of classifier-free guidance; at most 1 is none.
        height: In pixels, the pipeline's own by default.
        width: In pixels, the pipeline's own by default.
        batch_size: Images per call of the pipeline, 1 or more.

    Raises:
        DiffCRError: A number is outside its range.
    """

    seed: int = 0
    num_inference_steps: int = 20
    guidance_scale: float = 4.5
    height: int | None = None
    width: int | None = None
    batch_size: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.num_inference_steps <= MOST_STEPS:
            raise DiffCRError(
                f"num_inference_steps is {self.num_inference_steps}: give 1 to {MOST_STEPS}"
            )
        if self.batch_size < 1:
            raise DiffCRError(f"batch_size is {self.batch_size}: give 1 or more")
        if not 0 <= self.guidance_scale <= _LARGEST_GUIDANCE:
            raise DiffCRError(
                f"guidance_scale is {self.guidance_scale}: give 0 to {_LARGEST_GUIDANCE}"
            )


def generate_images(
    pipe: Any,
    prompts: Sequence[str],
    seed: int = 0,
    num_inference_steps: int = 20,
    guidance_scale: float = 4.5,
    height: int | None = None,
    width: int | None = None,
    batch_size: int = 8,
    progress: str | None = None,
) -> list[Image.Image]:
    """One image per prompt.

    Image i starts from the noise of a generator of its own, seeded `seed + i`, whatever the batch
    size. The model is in eval mode meanwhile.

    Args:
        pipe: A text-to-image pipeline of diffusers; one of videos makes videos of a single frame.
        prompts: At least one.
        seed: Of the first image.
        num_inference_steps: Denoising steps.
        guidance_scale: Of classifier-free guidance, at most 1 is none; what a guidance-distilled
            model is told.
        height: In pixels, the pipeline's own by default.
        width: In pixels, the pipeline's own by default.
        batch_size: Images per call of the pipeline.
        progress: Text beside a progress bar; None shows none.

    Returns:
        RGB images in the order of the prompts.

    Raises:
        DiffCRError: There are no prompts, a number is outside its range, or an image is not finite.
    """
    check_prompts(prompts)
    generation = Generation(seed, num_inference_steps, guidance_scale, height, width, batch_size)
    images: list[Image.Image] = []
    bar = tqdm(total=len(prompts), desc=progress, unit="image", disable=progress is None)
    with generating(pipe), bar:
        for start in range(0, len(prompts), batch_size):
            batch = prompts[start : start + batch_size]
            images += generate_batch(pipe, batch, start, generation)
            bar.update(len(batch))
    return images


@contextmanager
def generating(pipe: Any) -> Iterator[None]:
    """Within the context the model is in eval mode, and calls show no progress of their own."""
    with evaluating(find_transformer(pipe)), without_progress(pipe):
        yield


def generate_batch(
    pipe: Any, prompts: Sequence[str], first: int, generation: Generation
) -> list[Image.Image]:
    """The images of one call of the pipeline, within `generating`.

    Args:
        pipe: A text-to-image pipeline of diffusers.
        prompts: Of the batch.
        first: Number of its first image, whose seed is `generation.seed + first`.
        generation: How.

    Raises:
        DiffCRError: An image is not finite.
    """
    # A video of one frame is a picture.
    size = OutputSize(generation.height, generation.width, frames=1)
    pixels = pipe(
        list(prompts),
        generator=generators(generation.seed + first, len(prompts)),
        num_inference_steps=generation.num_inference_steps,
        output_type="np",
        **guidance_options(pipe, generation.guidance_scale, len(prompts)),
        **size.arguments(pipe),
        **call_options(pipe),
    )[0]
    pixels = pixels[:, 0] if pixels.ndim == 5 else pixels
    for number, picture in enumerate(pixels, first + 1):
        _require_finite(picture, number)
    images: list[Image.Image] = pipe.numpy_to_pil(pixels)
    return images


def _require_finite(pixels: NDArray[np.floating], number: int) -> None:
    """Raises DiffCRError where a picture holds NaN, which would be written as black."""
    if not np.isfinite(pixels).all():
        raise DiffCRError(
            f"image {number} is not finite (NaN): the model's weights or its dtype cannot make it; "
            "lower the guidance, or give a wider dtype or other weights"
        )


def check_prompts(prompts: Sequence[str]) -> None:
    """Raises DiffCRError where there are no prompts, or one text instead of several."""
    if not prompts:
        raise DiffCRError("there are no prompts: give at least one")
    if isinstance(prompts, str):
        raise DiffCRError("prompts is one text: give a list of texts")


def generators(seed: int, count: int) -> list[torch.Generator]:
    """Generators seeded `seed`, `seed + 1`, ... on the CPU, which draw the same on every device."""
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


def save_images(
    images: Sequence[Image.Image], directory: str | Path, prefix: str = "image"
) -> list[Path]:
    """Write images as `PREFIX-0000.png`, `PREFIX-0001.png`, ...: lossless, so that what is measured
    on them is the model's. Returns their paths."""
    folder = Path(directory)
    paths = [folder / f"{prefix}-{index:04d}.png" for index in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        with replacing_file(path) as temporary:
            image.save(temporary, format="PNG")
    return paths
