"""From what a caller passes to edits, and from generated pictures to what the caller gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args
from warnings import warn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.inpainting.images.blending import Blending, blend, check_blending
from diffcr.inpainting.images.edits import Edit, WorkingSize, common_length, prepare_edits, repeated
from diffcr.inpainting.images.pictures import Picture

OutputType = Literal["pil", "np", "pt"]
EMPTY_MASK = "the mask is empty: the image comes back as it is"


@dataclass(frozen=True)
class Call:
    """One call of an inpainting pipeline, checked.

    Attributes:
        edits: One per image that comes back.
        prompts: Likewise.
        generator: One, or one per image that comes back; None draws from torch's own state.
        latents: [B, C, h, w], noise that takes the place of a draw.
        blending: As `blend` takes it.
        output_type: Of the images that come back.
    """

    edits: list[Edit]
    prompts: list[str]
    generator: Any
    latents: Tensor | None
    blending: Blending
    output_type: OutputType

    @property
    def masked(self) -> list[int]:
        """Places of the images with something to repaint."""
        return [i for i, edit in enumerate(self.edits) if not edit.is_empty]

    def of_masked(self) -> Call:
        """The call without images that come back as they are."""
        places = self.masked
        listed = isinstance(self.generator, list)
        return Call(
            [self.edits[i] for i in places],
            [self.prompts[i] for i in places],
            [self.generator[i] for i in places] if listed else self.generator,
            None if self.latents is None else self.latents[places],
            self.blending,
            self.output_type,
        )


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


def read_call(request: Request, model_side: int, pixels_per_token: int) -> Call:
    """Check a call and bring its lists to one length; images of one prompt follow each other.

    Args:
        request: What the caller passed.
        model_side: Longer side of the pictures that the model works on, in pixels.
        pixels_per_token: Side of a token's square of pixels.

    Raises:
        DiffCRError: An argument is outside its range, or the numbers of prompts, images, masks and
            generators do not fit.
    """
    check_blending(request.blending)
    output_type, copies = request.output_type, request.num_images_per_prompt
    if output_type not in get_args(OutputType):
        choices = ", ".join(get_args(OutputType))
        raise DiffCRError(f"output_type is {output_type!r}: choose from {choices}")
    for name, value in (
        ("num_inference_steps", request.num_inference_steps),
        ("num_images_per_prompt", copies),
    ):
        if value < 1:
            raise DiffCRError(f"{name} is {value}: give 1 or more")
    prompt, generator, latents = request.prompt, request.generator, request.latents
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    size = WorkingSize(model_side, pixels_per_token, request.height, request.width)
    edits = prepare_edits(request.image, request.mask_image, size, request.dilation)
    count = common_length(prompt=prompts, image=edits)
    edits = [e for e in repeated(edits, count) for _ in range(copies)]
    prompts = [p for p in repeated(prompts, count) for _ in range(copies)]
    if isinstance(generator, list) and len(generator) != len(edits):
        raise DiffCRError(f"there are {len(generator)} generators for {len(edits)} images")
    if latents is not None and len(latents) != len(edits):
        raise DiffCRError(f"there are latents of {len(latents)} samples for {len(edits)} images")
    if output_type != "pil" and len({edit.region.shape for edit in edits}) > 1:
        raise DiffCRError("images of several sizes fit no array: take output_type='pil'")
    return Call(edits, prompts, generator, latents, request.blending, output_type)


def run_call(call: Call, generate: Callable[[Call], NDArray[np.uint8]]) -> Any:
    """Repaint what is masked, and give the images in the form that was asked for.

    Args:
        call: As `read_call` gives it.
        generate: From a call with masked images alone to pictures [B, h, w, 3] at the model's size.

    Returns:
        A list of PIL images, an array [B, H, W, C] float32 in [0, 1], or a tensor [B, C, H, W].
    """
    pictures = [edit.picture for edit in call.edits]
    masked = call.masked
    if len(masked) < len(pictures):
        warn(EMPTY_MASK, DiffCRWarning, stacklevel=3)
    if masked:
        generated = generate(call.of_masked())
        for place, pixels in zip(masked, generated, strict=True):
            pictures[place] = blend(call.edits[place], pixels, call.blending)
    return _in_form(pictures, call.output_type)


def _in_form(pictures: list[Picture], output_type: OutputType) -> Any:
    if output_type == "pil":
        return [picture.to_pil() for picture in pictures]
    values = np.stack([picture.pixels for picture in pictures]).astype(np.float32) / 255
    return values if output_type == "np" else torch.from_numpy(values).permute(0, 3, 1, 2)
