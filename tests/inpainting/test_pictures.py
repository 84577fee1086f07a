"""Whatever form a picture or a mask comes in, it is read right or refused in one line."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.inpainting.images.pictures import open_image, read_masks, read_pictures
from tests.inpainting.hosts import box_mask, photograph


def _pixels(image: Any) -> np.ndarray[Any, Any]:
    (picture,) = read_pictures(image)
    return picture.pixels


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "HSV", "LAB"])
def test_modes_are_converted_as_pil_does(mode: str) -> None:
    image = Image.fromarray(photograph()).convert("RGB").convert(mode if mode != "LAB" else "RGB")
    assert np.array_equal(_pixels(image), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_alpha_is_kept_apart(mode: str) -> None:
    rgba = Image.fromarray(np.dstack([photograph(), box_mask()]))
    image = rgba.convert("LA").convert(mode) if mode == "PA" else rgba.convert(mode)
    (picture,) = read_pictures(image)
    assert picture.alpha is not None
    assert picture.to_pil().mode == "RGBA"
    assert np.array_equal(np.asarray(picture.to_pil()), np.asarray(image.convert("RGBA")))


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    deep = (photograph()[..., 0].astype(np.uint16)) * 257
    image = Image.fromarray(deep)
    assert image.mode.startswith("I")
    with pytest.warns(DiffCRWarning, match="edited as an 8-bit"):
        assert np.array_equal(_pixels(image)[..., 2], photograph()[..., 0])
    (mask,) = read_masks(Image.fromarray(box_mask().astype(np.uint16) * 257))
    assert np.array_equal(mask, box_mask() > 0)
    with pytest.raises(DiffCRError, match="32-bit pixels"):
        read_pictures(Image.fromarray(np.full((2, 2), 70000, np.int32)))


def test_exif_turns_a_picture_upright(tmp_path: Path) -> None:
    image = Image.fromarray(photograph(8, 12))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    upright = open_image(tmp_path / "turned.png")
    assert upright.size == (8, 12)
    assert np.array_equal(_pixels(upright), np.rot90(photograph(8, 12), -1))
    assert np.array_equal(_pixels(Image.open(tmp_path / "turned.png")), _pixels(upright))


def test_arrays_and_tensors_are_the_same_picture() -> None:
    pixels = photograph(6, 10)
    floats = pixels.astype(np.float32) / 255
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    forms: list[Any] = [
        pixels,
        floats,
        floats.astype(np.float64),
        pixels[None],
        tensor,
        tensor[None],
        tensor.float() / 255,
        tensor.float() / 127.5 - 1,
        [Image.fromarray(pixels)],
    ]
    for form in forms:
        assert np.array_equal(_pixels(form), pixels)
    assert len(read_pictures([pixels, tensor])) == 2
    assert np.array_equal(_pixels(pixels[..., 0])[..., 1], pixels[..., 0])
    assert np.array_equal(_pixels(pixels[..., :1])[..., 1], pixels[..., 0])


@pytest.mark.parametrize(
    ("image", "saying"),
    [
        ([], "no image"),
        ("photo.png", "is a str"),
        (None, "is a NoneType"),
        (np.zeros((4, 4, 2), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.zeros(4, np.uint8), "shape"),
        (np.full((4, 4), 2.0), r"outside \[0, 1\]"),
        (np.full((4, 4), np.nan), r"outside \[0, 1\]"),
        (np.zeros((4, 4), np.int64), "int64 values"),
        (Image.new("F", (4, 4)), "mode F"),
        (Image.new("RGB", (0, 4)), "no pixels"),
    ],
)
def test_what_is_no_picture_is_refused(image: Any, saying: str) -> None:
    with pytest.raises(DiffCRError, match=saying):
        read_pictures(image)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\nbroken"])
def test_a_file_that_is_no_picture_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(DiffCRError, match=r"broken\.png is not a readable picture") as error:
        open_image(tmp_path / "broken.png")
    assert "\n" not in str(error.value)
    with pytest.raises(DiffCRError, match="is missing"):
        open_image(tmp_path / "none.png")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.fromarray(photograph(64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DiffCRError, match="not a readable picture"):
        open_image(path)


def test_a_file_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(photograph(64, 64)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DiffCRError, match="too large"):
        open_image(tmp_path / "large.png")


def test_masks_of_every_form() -> None:
    expected = box_mask() > 0
    white_on_nothing = np.dstack([np.full((32, 32, 3), 255, np.uint8), box_mask()])
    forms: list[Any] = [
        Image.fromarray(box_mask()),
        Image.fromarray(box_mask()).convert("1"),
        Image.fromarray(white_on_nothing),
        expected,
        box_mask(),
        box_mask()[..., None],
        box_mask() / 255,
        torch.from_numpy(expected),
        torch.from_numpy(expected)[None].float(),
        torch.from_numpy(expected)[None, None].float(),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for form in forms:
            (mask,) = read_masks(form)
            assert mask.dtype == bool and np.array_equal(mask, expected)
    (half,) = read_masks(np.array([[127, 128]], np.uint8))
    assert half.tolist() == [[False, True]]
