"""Images of a list of prompts, reproducible one by one."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from diffcr.errors import DiffCRError
from diffcr.evaluation.modes import evaluating
from diffcr.files import replacing_file
from diffcr.hosts import find_transformer
from diffcr.hosts.loading import text_tokens


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
        pipe: A text-to-image pipeline of diffusers.
        prompts: At least one.
        seed: Of the first image.
        num_inference_steps: Denoising steps.
        guidance_scale: Of classifier-free guidance; at most 1 is none.
        height: In pixels, the pipeline's own by default.
        width: In pixels, the pipeline's own by default.
        batch_size: Images per call of the pipeline.
        progress: Text beside a progress bar; None shows none.

    Returns:
        RGB images in the order of the prompts.

    Raises:
        DiffCRError: There are no prompts, or a number is outside its range.
    """
    check_generation(prompts, num_inference_steps, batch_size, guidance_scale)
    options = call_options(pipe) | {
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
        "height": height,
        "width": width,
    }
    images: list[Image.Image] = []
    bar = tqdm(total=len(prompts), desc=progress, unit="image", disable=progress is None)
    with evaluating(find_transformer(pipe)), without_progress(pipe), bar:
        for start in range(0, len(prompts), batch_size):
            batch = list(prompts[start : start + batch_size])
            images += pipe(batch, generator=generators(seed + start, len(batch)), **options)[0]
            bar.update(len(batch))
    return images


def check_generation(
    prompts: Sequence[str], num_inference_steps: int, batch_size: int, guidance_scale: float
) -> None:
    """Raises DiffCRError where `generate_images` cannot run."""
    if not prompts:
        raise DiffCRError("there are no prompts: give at least one")
    if isinstance(prompts, str):
        raise DiffCRError("prompts is one text: give a list of texts")
    for name, value in (("num_inference_steps", num_inference_steps), ("batch_size", batch_size)):
        if value < 1:
            raise DiffCRError(f"{name} is {value}: give 1 or more")
    if not 0 <= guidance_scale < float("inf"):
        raise DiffCRError(f"guidance_scale is {guidance_scale}: give 0 or more")


def generators(seed: int, count: int) -> list[torch.Generator]:
    """Generators seeded `seed`, `seed + 1`, ... on the CPU, which draw the same on every device."""
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


def call_options(pipe: Any) -> dict[str, Any]:
    """Arguments of the pipeline's call that ask for exactly the given size and prompt.

    The prompt's tokens are at most the tokenizer's `model_max_length`.
    """
    accepted = inspect.signature(type(pipe).__call__).parameters
    options = {
        "use_resolution_binning": False,
        "clean_caption": False,
        "max_sequence_length": text_tokens(pipe),
    }
    return {name: value for name, value in options.items() if name in accepted}


@contextmanager
def without_progress(pipe: Any) -> Iterator[None]:
    """Hides the pipeline's own progress bar, one per call, within the context."""
    previous = dict(getattr(pipe, "_progress_bar_config", {}))
    pipe.set_progress_bar_config(**{**previous, "disable": True})
    try:
        yield
    finally:
        pipe.set_progress_bar_config(**previous)


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
