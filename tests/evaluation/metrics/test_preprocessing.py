"""Resizing, each against the library or the definition that it is to equal."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from diffcr.evaluation.metrics.preprocessing import (
    CLIP,
    clean_bicubic,
    crop_then_resize,
    resize_then_crop,
    resize_then_pad,
    squash,
)
from tests.evaluation.metrics.models import picture

SIZES = [(40, 32), (33, 47), (28, 28), (20, 90)]


@pytest.mark.parametrize("size", SIZES)
def test_clip_is_prepared_as_by_transformers(size: tuple[int, int]) -> None:
    module = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    processor = module.CLIPImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    )
    image = picture(1, *size)
    expected = processor(image, return_tensors="pt")["pixel_values"]
    assert torch.allclose(CLIP(resize_then_crop(image, 28)), expected, atol=1e-5)


def test_clean_resizing_is_not_rounded_to_bytes() -> None:
    # Low contrast: bytes also lose what overshoots between the two passes.
    image = picture(2).point(lambda value: 100 + value // 8)
    resized = clean_bicubic(image, 99)
    assert resized.shape == (3, 99, 99) and resized.dtype == torch.float32
    assert resized.min() >= 0 and resized.max() <= 255
    rounded = np.asarray(image.resize((99, 99), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.abs(resized.numpy() - rounded).max() < 2
    assert not np.array_equal(resized.numpy(), resized.numpy().round())


def test_small_pictures_of_large_ones_are_antialiased() -> None:
    checks = np.indices((300, 300)).sum(0) % 2 * 255
    image = Image.fromarray(np.stack([checks.astype(np.uint8)] * 3, -1))
    for small in (
        clean_bicubic(image, 30) / 255,
        squash(image, 30),
        crop_then_resize(image, 30),
        resize_then_pad(image, 30),
    ):
        assert small[:, 2:-2, 2:-2].sub(0.5).abs().max() < 0.02


def test_a_square_of_the_right_size_stays_as_it_is() -> None:
    image = picture(3, 28, 28)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    for resize in (squash, crop_then_resize, resize_then_crop, resize_then_pad):
        assert torch.equal(resize(image, 28), pixels)
    assert torch.allclose(clean_bicubic(image, 28) / 255, pixels)


def test_what_becomes_of_the_longer_side() -> None:
    image = Image.new("RGB", (80, 40), (255, 255, 255))
    image.paste((255, 0, 0), (0, 0, 10, 40))
    assert squash(image, 20)[1, :, 0].max() == 0
    assert crop_then_resize(image, 20).min() == 1
    assert resize_then_crop(image, 20).min() == 1
    padded = resize_then_pad(image, 20)
    assert padded.shape == (3, 20, 20)
    assert padded[:, :5].abs().max() == padded[:, 15:].abs().max() == 0
    assert padded[2, 5:15, 10].min() > 0.99
