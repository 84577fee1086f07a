"""Pictures in whatever form the caller has them, as 8-bit RGB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from warnings import warn

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from diffcr.errors import DiffCRError, DiffCRWarning

_DEEP = 65535
_HALF = np.float32(127.5)
# Rec. 601, as PIL converts to greyscale.
_LUMINANCE = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Picture:
    """A picture as it is edited: what has more than 8 bits a channel is rounded to them.

    Attributes:
        pixels: [H, W, 3] uint8, RGB.
        alpha: [H, W] uint8; None for an opaque picture.
    """

    pixels: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None = None

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[1])

    def to_pil(self) -> Image.Image:
        """RGB, or RGBA where there is an alpha channel."""
        if self.alpha is None:
            return Image.fromarray(self.pixels)
        return Image.fromarray(np.dstack([self.pixels, self.alpha]))


def open_file(file: Path | BinaryIO, name: str = "") -> Image.Image:
    """A picture file, read whole, in its own mode; the first frame of several.

    Args:
        file: Its path, or its contents.
        name: What errors call it; the path by default.

    Raises:
        DiffCRError: The file is missing, is not a picture, or is too large to be opened.
    """
    name = name or str(file)
    if isinstance(file, Path) and not file.exists():
        raise DiffCRError(f"{name} is missing: give the file of a picture")
    if isinstance(file, Path) and not file.is_file():
        raise DiffCRError(f"{name} is not a readable picture: it is not an ordinary file")
    try:
        with Image.open(file) as opened:
            opened.load()
            return opened
    except Image.DecompressionBombError as error:
        raise DiffCRError(f"{name} is too large: {error}") from error
    # What a damaged file raises depends on its format.
    except Exception as error:
        raise DiffCRError(f"{name} is not a readable picture: {error}") from error


def open_image(file: Path | BinaryIO, name: str = "") -> Image.Image:
    """As `open_file`, turned upright as its EXIF says."""
    return ImageOps.exif_transpose(open_file(file, name))


def open_rgb(file: Path | BinaryIO, name: str = "") -> Image.Image:
    """As `open_image`, in 8-bit RGB; what is transparent is over white.

    Raises:
        DiffCRError: As `open_file`, or its pixels have more than 16 bits.
    """
    image = open_image(file, name)
    if image.mode[0] in "IF":
        return read_picture(image, name or str(file)).to_pil()
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    white = Image.new("RGB", layer.size, "white")
    white.paste(layer, mask=layer.getchannel("A"))
    return white


def read_pictures(images: Any) -> list[Picture]:
    """One or several pictures.

    Args:
        images: A PIL image of any mode (turned upright as its EXIF says; palettes, greyscale, CMYK
            and 16-bit greyscale are converted), an array or a tensor, or a list of them. Arrays are
            [H, W], [H, W, 1 | 3 | 4] or a batch [B, H, W, C]: uint8, uint16, bool, or floats in
            [0, 1]. Tensors are [C, H, W] or [B, C, H, W]: uint8, or floats in [0, 1], or in [-1, 1]
            where one is negative.

    Raises:
        DiffCRError: It is none of these.
    """
    return [read_picture(image) for image in separate(images)]


def read_masks(masks: Any) -> list[NDArray[np.bool_]]:
    """Masks of the forms that `read_pictures` reads: white is repainted, black stays.

    A pixel is masked where its luminance is at least one half. Transparent pixels count as black:
    white strokes on a transparent layer are a mask.

    Returns:
        [H, W] bool for each.

    Raises:
        DiffCRError: One is no picture.
    """
    return [_where_white(read_picture(mask, "mask")) for mask in separate(masks)]


def _where_white(picture: Picture) -> NDArray[np.bool_]:
    luminance = np.zeros(picture.pixels.shape[:2], dtype=np.float32)
    for channel, weight in enumerate(_LUMINANCE):
        luminance += np.float32(weight) * picture.pixels[..., channel]
    if picture.alpha is not None:
        luminance *= picture.alpha.astype(np.float32) / 255
    return luminance >= _HALF


def separate(images: Any) -> list[Any]:
    """Single pictures of a list or a batch; tensors become arrays, channels last.

    Raises:
        DiffCRError: A list is empty.
    """
    if isinstance(images, Sequence) and not isinstance(images, str | bytes):
        if not images:
            raise DiffCRError("there is no image: give at least one")
        return [single for image in images for single in separate(image)]
    if isinstance(images, Tensor):
        values = images.detach().cpu()
        if values.is_floating_point():
            values = values.float()
            values = (values + 1) / 2 if values.numel() and values.min() < 0 else values
        array = values.numpy()
        array = np.moveaxis(array, -3, -1) if array.ndim > 2 else array
        return separate(array)
    if isinstance(images, np.ndarray) and images.ndim == 4:
        return list(images)
    return [images]


def read_picture(image: Any, role: str = "image") -> Picture:
    """A single PIL image or array; `role` names it in messages.

    Raises:
        DiffCRError: It is neither, or its mode, shape or values are not a picture's.
    """
    if isinstance(image, Image.Image):
        return _from_pil(image, role)
    if isinstance(image, np.ndarray):
        return _from_array(image, role)
    raise DiffCRError(
        f"{role} is a {type(image).__name__}: give a PIL image, a numpy array or a torch tensor"
    )


def _from_pil(image: Image.Image, role: str) -> Picture:
    if 0 in image.size:
        raise DiffCRError(f"{role} has no pixels: its size is {image.size}")
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        return _from_array(_deep(np.asarray(upright), role), role)
    if upright.mode == "F":
        raise DiffCRError(f"{role} has floating-point pixels (mode F): convert it to 8 bits first")
    if upright.has_transparency_data:
        values = np.asarray(upright.convert("RGBA"))
        return Picture(values[..., :3].copy(), values[..., 3].copy())
    return Picture(np.asarray(upright.convert("RGB")).copy())


def _deep(values: NDArray[Any], role: str) -> NDArray[np.uint16]:
    if values.min() < 0 or values.max() > _DEEP:
        raise DiffCRError(f"{role} has 32-bit pixels outside 16 bits: convert it to 8 bits first")
    return values.astype(np.uint16)


def _from_array(values: NDArray[Any], role: str) -> Picture:
    shaped = values[..., None] if values.ndim == 2 else values
    if shaped.ndim != 3 or shaped.shape[2] not in (1, 3, 4) or 0 in shaped.shape:
        raise DiffCRError(
            f"{role} has shape {list(values.shape)}: give [height, width] with 1, 3 or 4 channels "
            "(first in a tensor, last in an array)"
        )
    pixels = _eight_bits(shaped, role)
    alpha = pixels[..., 3].copy() if pixels.shape[2] == 4 else None
    colours = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[..., :3].copy()
    return Picture(colours, alpha)


def _eight_bits(values: NDArray[Any], role: str) -> NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return values.astype(np.uint8, copy=False)
    if values.dtype == bool:
        return (values * np.uint8(255)).astype(np.uint8)
    if values.dtype == np.uint16:
        if role == "image":
            warn("a 16-bit picture is edited as an 8-bit one", DiffCRWarning, stacklevel=5)
        return np.asarray(np.rint(values / (_DEEP / 255)), dtype=np.uint8)
    if np.issubdtype(values.dtype, np.floating):
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise DiffCRError(
                f"{role} has values outside [0, 1]: scale floats to it, or give uint8"
            )
        return np.asarray(np.rint(values * 255), dtype=np.uint8)
    raise DiffCRError(f"{role} has {values.dtype} values: give uint8, or floats in [0, 1]")
