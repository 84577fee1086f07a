"""From pictures of any size to a network's input, as the code behind published numbers does it.

torchvision is not needed, and a number does not depend on whether it is there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

_BICUBIC = Image.Resampling.BICUBIC


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation per channel, of values in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, pixels: Tensor) -> Tensor:
        """Applied to [B, 3, H, W]."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std


CLIP = Normalisation((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def clean_bicubic(image: Image.Image, side: int) -> Tensor:
    """[3, side, side] float32 in [0, 255], each channel resized in float32 and not rounded to 8
    bits: the "clean" resizing of clean-fid (Parmar et al., 2022)."""
    channels = [
        np.asarray(Image.fromarray(channel).resize((side, side), _BICUBIC)).clip(0, 255)
        for channel in np.asarray(image, dtype=np.float32).transpose(2, 0, 1)
    ]
    return torch.from_numpy(np.stack(channels))


def squash(image: Image.Image, side: int) -> Tensor:
    """[3, side, side] float32 in [0, 1], the whole picture with its proportions given up:
    dgm-eval's for FD-DINOv2."""
    return _pixels(image.resize((side, side), _BICUBIC))


def crop_then_resize(image: Image.Image, side: int) -> Tensor:
    """[3, side, side] float32 in [0, 1], the square in the centre: google-research/cmmd's."""
    width, height = image.size
    length = min(width, height)
    left, top = (width - length) // 2, (height - length) // 2
    square = image.crop((left, top, left + length, top + length))
    return _pixels(square.resize((side, side), _BICUBIC))


def resize_then_crop(image: Image.Image, side: int) -> Tensor:
    """[3, side, side] float32 in [0, 1], the shorter side resized, then the centre: CLIP's own, as
    transformers has it."""
    shorter = min(image.size)
    width, height = (side if n == shorter else int(side * n / shorter) for n in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    resized = image.resize((width, height), _BICUBIC)
    return _pixels(resized.crop((left, top, left + side, top + side)))


def resize_then_pad(image: Image.Image, side: int) -> Tensor:
    """[3, side, side] float32, the longer side resized without rounding to 8 bits, the rest black:
    HPSv2's. Bicubic overshoot outside of [0, 1] stays, as it does there."""
    scale = side / max(image.size)
    width, height = (round(n * scale) for n in image.size)
    pixels = _pixels(image)[None]
    if scale != 1:
        pixels = interpolate(pixels, (height, width), mode="bicubic", antialias=True)
    left, top = (side - width) // 2, (side - height) // 2
    return pad(pixels, (left, side - width - left, top, side - height - top))[0]


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
