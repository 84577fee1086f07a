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

from diffcr.inpainting.images.edits import Edit, resize_pixels
from diffcr.inpainting.images.masks import bounds, latent_mask, masked_tokens, resize_mask
from diffcr.inpainting.request import Prepared, Request, finish, prepare
from diffcr.inpainting.sampling import (
    Sampler,
    decode_pixels,
    encode_pixels,
    encode_prompts,
    guided_prediction,
    pixels_per_token,
    working_side,
)


class RegenerateImage:
    """Denoises the whole picture and keeps what is masked of it.

    Args:
        pipe: A PixArt text-to-image pipeline.
    """

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe

    @torch.no_grad()
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The images, from the arguments of `LazyInpaintPipeline` (a `Request`).

        Raises:
            DiffCRError: As `LazyInpaintPipeline` does.
        """
        request = Request(*args, **kwargs)
        prepared = prepare(request, working_side(self.pipe), pixels_per_token(self.pipe))
        return finish(prepared, self._generate(prepared) if prepared.edits else [])

    def _generate(self, prepared: Prepared) -> list[NDArray[np.uint8]]:
        """A picture [h, w, 3] per sample, at the model's size."""
        pipe, edits = self.pipe, prepared.edits
        prompts = encode_prompts(pipe, prepared)
        sampler = Sampler(pipe, prepared)
        latents = noise = sampler.noise(prompts.embeds.dtype)
        drawn = noise / sampler.scheduler.init_noise_sigma
        known = torch.cat([encode_pixels(pipe, edit.working_pixels) for edit in edits]).to(noise)
        grids = [masked_tokens(edit.working_region, pixels_per_token(pipe)) for edit in edits]
        masked = latent_mask(grids, pipe.transformer.config.patch_size).to(noise.device)
        for step, timestep in enumerate(sampler):
            if step:
                there = sampler.scheduler.add_noise(known, drawn, timestep.expand(len(known)))
                latents = torch.where(masked, latents, there)
            given = sampler.model_input(latents, timestep)
            prediction = guided_prediction(
                pipe.transformer, given, timestep, prompts, prepared.request.guidance_scale
            )
            latents = sampler.step(prediction, timestep, latents)
        return decode_pixels(pipe, torch.where(masked, latents, known))


class RegenerateCrop(RegenerateImage):
    """Denoises the tightest square around the mask at the model's own size: a fixed cost, and no
    view of what is outside of the square. The square is cut from the picture at the model's size,
    so that its result is blended as that of every other pipeline."""

    def _generate(self, prepared: Prepared) -> list[NDArray[np.uint8]]:
        windows = [_square_around(edit.working_region) for edit in prepared.edits]
        side = working_side(self.pipe)
        crops = [
            _cropped(e, window, side) for e, window in zip(prepared.edits, windows, strict=True)
        ]
        generated = super()._generate(replace(prepared, edits=crops))
        pictures = [edit.working_pixels.copy() for edit in prepared.edits]
        for picture, window, pixels in zip(pictures, windows, generated, strict=True):
            picture[window] = resize_pixels(pixels, *picture[window].shape[:2])
        return pictures


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
