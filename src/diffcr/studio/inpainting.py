"""The inpainting model behind the page."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from diffcr.errors import DiffCRError
from diffcr.hosts.sampling import without_progress
from diffcr.studio.requests import PictureRequest, RepaintedPicture

MOST_PIXELS = 4096 * 4096


@dataclass
class InpaintingModel:
    """An inpainting model.

    Attributes:
        pipe: A `LazyInpaintPipeline`.
        guidance_scale: That the page begins with.
        lock: Held while a picture is repainted.
        knows_scenes: Whether it is the embedded model.
    """

    pipe: Any
    guidance_scale: float
    lock: Lock
    knows_scenes: bool = False
    _warm: bool = False

    def repaint(
        self, image: Image.Image, mask: NDArray[np.bool_], request: PictureRequest
    ) -> RepaintedPicture:
        """Repaint what is under a mask. The model has painted before it is timed, but has not seen
        the picture, if it is not in the pipeline's cache.

        Args:
            image: `MOST_PIXELS` at most.
            mask: [H, W] of the picture's size.
            request: What is to be seen.

        Raises:
            DiffCRError: The picture is too large, or nothing is masked.
        """
        if image.width * image.height > MOST_PIXELS:
            raise DiffCRError(
                f"the picture has {image.width} x {image.height} pixels: "
                f"give {MOST_PIXELS} at most (4096 x 4096)"
            )
        if not mask.any():
            raise DiffCRError("nothing is masked: paint over what is to change, or choose a part")
        with self.lock, without_progress(self.pipe):
            if not self._warm:
                self._paint(image, mask, replace(request, steps=1))
                self.pipe.cache.clear()
                self._warm = True
            start = time.perf_counter()
            painted = self._paint(image, mask, request)
            seconds = time.perf_counter() - start
        return RepaintedPicture(painted, seconds, float(mask.mean()))

    def _paint(
        self, image: Image.Image, mask: NDArray[np.bool_], request: PictureRequest
    ) -> Image.Image:
        images: list[Image.Image] = self.pipe(
            request.prompt,
            image,
            mask,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            generator=torch.Generator().manual_seed(request.seed),
        ).images
        return images[0]
