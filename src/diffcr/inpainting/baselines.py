"""Inpainting with a text-to-image pipeline as it is: what Lazy Diffusion is compared with.

RegenerateImage and RegenerateCrop as Nitzan et al. name them (arXiv 2404.12382). Neither is trained
for inpainting; the known part of the picture enters as in Blended Latent Diffusion
(Avrahami et al. 2023): after every step, latents that are not masked are those of the picture at
that step's noise.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcr.inpainting.call import Call, Request, read_call, run_call
from diffcr.inpainting.images.edits import Edit, resize_pixels
from diffcr.inpainting.images.masks import bounds, latent_mask, masked_tokens, resize_mask
from diffcr.inpainting.sampling import (
    Prompts,
    decode_pixels,
    denoise,
    encode_pixels,
    encode_prompts,
    guided_prediction,
)


class RegenerateImage:
    """Denoises the whole picture and keeps what is masked of it.

    Args:
        pipe: A PixArt text-to-image pipeline.
    """

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe

    @property
    def pixels_per_token(self) -> int:
        """Side of a token's square of pixels."""
        return int(self.pipe.vae_scale_factor * self.pipe.transformer.config.patch_size)

    @property
    def model_side(self) -> int:
        """Longer side of the pictures that the model works on, in pixels."""
        return int(self.pipe.vae_scale_factor * self.pipe.transformer.config.sample_size)

    @torch.no_grad()
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The images, from the arguments of `LazyInpaintPipeline` (a `Request`).

        Raises:
            DiffCRError: As `LazyInpaintPipeline` does.
        """
        request = Request(*args, **kwargs)

        def generate(masked: Call) -> NDArray[np.uint8]:
            prompts = encode_prompts(self.pipe, masked.prompts, request)
            return self._regenerate(
                masked, prompts, request.num_inference_steps, request.guidance_scale
            )

        return run_call(read_call(request, self.model_side, self.pixels_per_token), generate)

    def _regenerate(
        self, call: Call, prompts: Prompts, num_inference_steps: int, guidance_scale: float
    ) -> NDArray[np.uint8]:
        """Pictures [B, h, w, 3] at the model's size."""
        pipe = self.pipe
        device, dtype = pipe._execution_device, prompts.embeds.dtype
        known = torch.cat([encode_pixels(pipe, edit.working_pixels) for edit in call.edits])
        known = known.to(device, dtype)
        grids = [masked_tokens(e.working_region, self.pixels_per_token) for e in call.edits]
        masked = latent_mask(grids, pipe.transformer.config.patch_size).to(device)
        height, width = call.edits[0].working_region.shape
        noise = pipe.prepare_latents(
            len(known), known.shape[1], height, width, dtype, device, call.generator, call.latents
        )
        drawn = noise / pipe.scheduler.init_noise_sigma

        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            return guided_prediction(pipe.transformer, latents, timestep, prompts, guidance_scale)

        def keep_known(latents: Tensor, following: Tensor | None) -> Tensor:
            there = known
            if following is not None:
                there = pipe.scheduler.add_noise(known, drawn, following.expand(len(known)))
            return torch.where(masked, latents, there)

        denoised = denoise(pipe, noise, num_inference_steps, call.generator, predict, keep_known)
        return decode_pixels(pipe, denoised)


class RegenerateCrop(RegenerateImage):
    """Denoises the tightest square around the mask at the model's own size: a fixed cost, and no
    view of what is outside of the square. The square is cut from the picture at the model's size,
    so that its result is blended as that of every other pipeline."""

    def _regenerate(
        self, call: Call, prompts: Prompts, num_inference_steps: int, guidance_scale: float
    ) -> NDArray[np.uint8]:
        windows = [_square_around(edit.working_region) for edit in call.edits]
        crops = [
            _cropped(edit, window, self.model_side)
            for edit, window in zip(call.edits, windows, strict=True)
        ]
        inner = replace(call, edits=crops)
        generated = super()._regenerate(inner, prompts, num_inference_steps, guidance_scale)
        pictures = [edit.working_pixels.copy() for edit in call.edits]
        for picture, window, pixels in zip(pictures, windows, generated, strict=True):
            height, width = picture[window].shape[:2]
            picture[window] = resize_pixels(pixels, height, width)
        return np.stack(pictures)


def _square_around(region: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The tightest square that holds the region; cut where the picture is narrower."""
    tight = bounds(region)
    longest = max(extent.stop - extent.start for extent in tight)
    window = []
    for extent, length in zip(tight, region.shape, strict=True):
        side = min(longest, length)
        start = (extent.start + extent.stop) // 2 - side // 2
        start = min(max(start, 0), length - side)
        window.append(slice(start, start + side))
    return window[0], window[1]


def _cropped(edit: Edit, window: tuple[slice, slice], side: int) -> Edit:
    """The edit with the window as the model's picture, `side` pixels high and wide."""
    pixels = np.ascontiguousarray(edit.working_pixels[window])
    return replace(
        edit,
        working_pixels=resize_pixels(pixels, side, side),
        working_region=resize_mask(edit.working_region[window], side, side),
    )
