"""Directories of pictures: what is taken, in which order, and what identifies it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from diffcr.errors import DiffCRError
from diffcr.evaluation.metrics.images import (
    ImageDirectory,
    check_prompts,
    generated_images,
    reference_images,
)
from tests.evaluation.metrics.models import picture, write_pictures


def test_generated_images_are_png_in_the_order_of_their_names(tmp_path: Path) -> None:
    write_pictures(tmp_path, 3)
    (tmp_path / "report.json").write_text("{}")
    write_pictures(tmp_path / "below", 2)
    images = generated_images(tmp_path)
    assert images.names == ("image-0000.png", "image-0001.png", "image-0002.png")
    assert [image.size for image in images.read(1, 9)] == [(48, 36), (40, 40)]


def test_jpeg_is_refused_for_generated_images_alone(tmp_path: Path) -> None:
    write_pictures(tmp_path, 2)
    picture(5).save(tmp_path / "photo.JPG", format="JPEG")
    with pytest.raises(DiffCRError, match=r"photo\.JPG is a JPEG file: save generated images as"):
        generated_images(tmp_path)
    assert len(reference_images(tmp_path)) == 3


def test_every_mode_is_read_as_rgb(tmp_path: Path) -> None:
    image = picture(0)
    for mode in ("L", "P", "RGBA", "1", "RGB"):
        image.convert(mode).save(tmp_path / f"{mode}.png")
    read = generated_images(tmp_path).read(0, 5)
    assert {picture.mode for picture in read} == {"RGB"}
    assert np.array_equal(np.asarray(read[-1]), np.asarray(image))
    assert np.array_equal(np.asarray(read[-2]), np.asarray(image))


def test_the_hash_is_of_names_and_bytes(tmp_path: Path) -> None:
    images = generated_images(write_pictures(tmp_path / "a", 2))
    expected = b"".join(
        name.encode() + b"\0" + hashlib.sha256((tmp_path / "a" / name).read_bytes()).digest()
        for name in images.names
    )
    first = images.sha256()
    assert first == hashlib.sha256(expected).hexdigest()
    assert generated_images(write_pictures(tmp_path / "b", 2)).sha256() == first
    picture(9).save(tmp_path / "b" / "image-0001.png")
    assert generated_images(tmp_path / "b").sha256() != first
    (tmp_path / "a" / "image-0001.png").rename(tmp_path / "a" / "other.png")
    assert generated_images(tmp_path / "a").sha256() != first


def test_mistakes_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DiffCRError, match="is not a directory"):
        generated_images(tmp_path / "none")
    with pytest.raises(DiffCRError, match="holds no PNG files"):
        generated_images(tmp_path)
    with pytest.raises(DiffCRError, match="holds no pictures"):
        reference_images(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DiffCRError, match=r"broken\.png is not a readable picture"):
        generated_images(tmp_path).read(0, 1)


def test_prompts_have_to_be_those_of_the_images(tmp_path: Path) -> None:
    images = generated_images(write_pictures(tmp_path, 3))
    check_prompts(images, ["a", "b", "c"])
    with pytest.raises(DiffCRError, match="3 images in .* and 2 prompts"):
        check_prompts(images, ["a", "b"])
    for names, sorts in ((("8", "9", "10"), False), (("p1-s1", "p1-s2", "p2-s1"), True)):
        images = ImageDirectory(tmp_path, tuple(sorted(f"{name}.png" for name in names)))
        if sorts:
            check_prompts(images, ["a", "b", "c"])
            continue
        with pytest.raises(DiffCRError, match="leading zeros"):
            check_prompts(images, ["a", "b", "c"])
