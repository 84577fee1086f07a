"""Pictures that are scored, and pictures that they are compared with."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from diffcr.errors import DiffCRError
from diffcr.inpainting.images.pictures import open_file

_LOSSLESS = frozenset({".png", ".bmp", ".tif", ".tiff", ".ppm"})
_JPEG = frozenset({".jpg", ".jpeg"})


@dataclass(frozen=True)
class ImageDirectory:
    """The pictures that lie in a directory itself, sorted by name.

    Attributes:
        path: The directory.
        names: File names, at least one.
    """

    path: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, start: int, stop: int) -> list[Image.Image]:
        """Pictures `start` to `stop` as RGB, whatever their mode; transparency is dropped.

        Raises:
            DiffCRError: One cannot be read.
        """
        return [open_file(self.path / name).convert("RGB") for name in self.names[start:stop]]

    def sha256(self) -> str:
        """Over every picture in order: its name in UTF-8, a zero byte, the SHA-256 of its bytes."""
        whole = hashlib.sha256()
        for name in self.names:
            with (self.path / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
            whole.update(name.encode() + b"\0" + digest)
        return whole.hexdigest()


def generated_images(path: Path) -> ImageDirectory:
    """The PNG files of a directory.

    Raises:
        DiffCRError: There are none, or there are JPEG files: what was lost to compression would be
            counted against the model.
    """
    names = _names(path)
    lossy = [name for name in names if Path(name).suffix.lower() in _JPEG]
    if lossy:
        raise DiffCRError(f"{path / lossy[0]} is a JPEG file: save generated images as PNG")
    return _directory(path, [name for name in names if name.lower().endswith(".png")], "PNG files")


def reference_images(path: Path) -> ImageDirectory:
    """The pictures of a directory, lossless or JPEG: sets of photographs such as COCO are JPEG.

    Raises:
        DiffCRError: There are none.
    """
    kinds = _LOSSLESS | _JPEG
    names = [name for name in _names(path) if Path(name).suffix.lower() in kinds]
    return _directory(path, names, "pictures")


def check_prompts(images: ImageDirectory, prompts: Sequence[str]) -> None:
    """Raises DiffCRError where image i of the directory is not known to be prompt i's."""
    if len(prompts) != len(images):
        raise DiffCRError(
            f"there are {len(images)} images in {images.path} and {len(prompts)} prompts: "
            "give one prompt per image"
        )
    if list(images.names) != sorted(images.names, key=_by_numbers):
        raise DiffCRError(
            f"the names in {images.path} do not sort by their numbers: write the numbers with "
            "leading zeros, so that images are in the order of the prompts"
        )


def _by_numbers(name: str) -> list[str | int]:
    parts = re.split("([0-9]+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def _names(path: Path) -> list[str]:
    if not path.is_dir():
        raise DiffCRError(f"{path} is not a directory: give a directory of images")
    return sorted(file.name for file in path.iterdir() if file.is_file())


def _directory(path: Path, names: list[str], wanted: str) -> ImageDirectory:
    if not names:
        raise DiffCRError(f"{path} holds no {wanted}: subdirectories are not searched")
    return ImageDirectory(path, tuple(names))
