"""Before and after the model: from what a caller passes to edits, and from what was generated to
what the caller gets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args
from warnings import warn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.inpainting.images.blending import Blending, blend, check_blending
from diffcr.inpainting.images.edits import Edit, WorkingSize, broadcast, prepare_edits

OutputType = Literal["pil", "np", "pt"]
EMPTY_MASK = "the mask is empty: the image comes back as it is"


@dataclass(frozen=True)
class Request:
    """What a caller passes to an inpainting pipeline; `LazyInpaintPipeline` says what each is."""

    prompt: str | list[str]
    image: Any
    mask_image: Any
    negative_prompt: str = ""
    num_inference_steps: int = 20
    guidance_scale: float = 4.5
    num_images_per_prompt: int = 1
    height: int | None = None
    width: int | None = None
    generator: torch.Generator | list[torch.Generator] | None = None
    latents: Tensor | None = None
    output_type: OutputType = "pil"
    blending: Blending = "poisson"
    dilation: int | None = None
    max_sequence_length: int = 300
    clean_caption: bool = False


@dataclass(frozen=True)
class Prepared:
    """A request, read and checked: what the model is to repaint in one call.

    Attributes:
        request: What the caller passed.
        images: One edit per image that comes back.
        edits: Those of them with something to repaint: the samples.
        prompts: One per sample.
        generator: One per sample, or one for all; None draws from torch's own state.
        latents: [B, C, h, w], noise that takes the place of a draw.
    """

    request: Request
    images: list[Edit]
    edits: list[Edit]
    prompts: list[str]
    generator: torch.Generator | list[torch.Generator] | None
    latents: Tensor | None


def prepare(request: Request, working_side: int, pixels_per_token: int) -> Prepared:
    """Check a request and bring its lists to one length; images of one prompt follow each other.

    Args:
        request: What the caller passed.
        working_side: Longer side of the pictures that the model works on, in pixels.
        pixels_per_token: Side of a token's square of pixels.

    Returns:
        What is to be done; no samples where all masks are empty. A `DiffCRWarning` tells of one.

    Raises:
        DiffCRError: An argument is outside its range, or the numbers of prompts, images, masks and
            generators do not fit.
    """
    _check_settings(request)
    size = WorkingSize(working_side, pixels_per_token, request.height, request.width)
    edits = prepare_edits(request.image, request.mask_image, size, request.dilation)
    prompt = [request.prompt] if isinstance(request.prompt, str) else request.prompt
    prompts, images = (
        [entry for entry in entries for _ in range(request.num_images_per_prompt)]
        for entries in broadcast(prompt=prompt, image=edits)
    )
    generator, latents = request.generator, request.latents
    if isinstance(generator, list) and len(generator) != len(images):
        raise DiffCRError(f"there are {len(generator)} generators for {len(images)} images")
    if latents is not None and len(latents) != len(images):
        raise DiffCRError(f"there are latents of {len(latents)} samples for {len(images)} images")
    if request.output_type != "pil" and len({edit.region.shape for edit in images}) > 1:
        raise DiffCRError("images of several sizes fit no array: take output_type='pil'")
    masked = [i for i, edit in enumerate(images) if not edit.is_empty]
    if len(masked) < len(images):
        warn(EMPTY_MASK, DiffCRWarning, stacklevel=3)
    return Prepared(
        request=request,
        images=images,
        edits=[images[i] for i in masked],
        prompts=[prompts[i] for i in masked],
        generator=[generator[i] for i in masked] if isinstance(generator, list) else generator,
        latents=None if latents is None else latents[masked],
    )


def _check_settings(request: Request) -> None:
    check_blending(request.blending)
    if request.output_type not in get_args(OutputType):
        choices = ", ".join(get_args(OutputType))
        raise DiffCRError(f"output_type is {request.output_type!r}: choose from {choices}")
    for name in ("num_inference_steps", "num_images_per_prompt"):
        if getattr(request, name) < 1:
            raise DiffCRError(f"{name} is {getattr(request, name)}: give 1 or more")


def finish(prepared: Prepared, generated: Iterable[NDArray[np.uint8]]) -> Any:
    """Put what was generated into the pictures, in the form that was asked for.

    Args:
        prepared: As `prepare` gives it.
        generated: One picture [h, w, 3] per sample, at the model's size.

    Returns:
        A list of PIL images, an array [B, H, W, C] float32 in [0, 1], or a tensor [B, C, H, W];
        pictures under an empty mask as they were given.
    """
    request, repainted = prepared.request, iter(generated)
    pictures = [
        edit.picture if edit.is_empty else blend(edit, next(repainted), request.blending)
        for edit in prepared.images
    ]
    if request.output_type == "pil":
        return [picture.to_pil() for picture in pictures]
    values = np.stack([picture.pixels for picture in pictures]).astype(np.float32) / 255
    return values if request.output_type == "np" else torch.from_numpy(values).permute(0, 3, 1, 2)
