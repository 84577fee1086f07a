"""Networks that describe pictures by vectors: Inception, DINOv2, and the image side of CLIP."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from diffcr.errors import DiffCRError, first_line
from diffcr.evaluation.metrics.images import ImageDirectory
from diffcr.evaluation.metrics.local_model import load_model, model_name
from diffcr.evaluation.metrics.preprocessing import (
    CLIP,
    IMAGENET,
    clean_bicubic,
    crop_then_resize,
    resize_then_crop,
    resize_then_pad,
    squash,
)

_DINOV2_SIDE, _INCEPTION_SIDE = 224, 299
_INCEPTION_SOURCE = (
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
    "inception-2015-12-05.pt"
)


@dataclass(frozen=True)
class FeatureNetwork:
    """A network that describes a picture by a vector, whatever the other pictures of a batch.

    Attributes:
        description: Model and resizing, by which values are comparable; for the record.
        features: RGB pictures, which may differ in size, to [B, F] float32.
    """

    description: Mapping[str, str]
    features: Callable[[Sequence[Image.Image]], Tensor]


@torch.no_grad()
def extract_features(
    network: FeatureNetwork,
    images: ImageDirectory,
    batch_size: int = 32,
    progress: str | None = None,
) -> Tensor:
    """Features of every picture, [n, F] float32 on the CPU, in the directory's order.

    Args:
        network: What describes them.
        images: Read batch by batch.
        batch_size: Pictures per call of the network.
        progress: Text beside a progress bar; None shows none.
    """
    batches = []
    with tqdm(total=len(images), desc=progress, unit="image", disable=progress is None) as bar:
        for start in range(0, len(images), batch_size):
            batch = images.read(start, start + batch_size)
            batches.append(network.features(batch).float().cpu())
            bar.update(len(batch))
    return torch.cat(batches)


def load_inception(path: Path, device: str) -> FeatureNetwork:
    """The 2048 pooled features of FID and KID, by the TorchScript file that StyleGAN's code uses.

    A TorchScript file is a program that runs as it is loaded and called: give one whose source you
    trust. Nothing is downloaded.

    Raises:
        DiffCRError: The file is missing, or no TorchScript that returns features.
    """
    if not path.is_file():
        raise DiffCRError(f"{path} is missing: save {_INCEPTION_SOURCE} there")
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()

        def features(images: Sequence[Image.Image]) -> Tensor:
            # At 299 x 299 the file's own resizing changes nothing but rounding.
            pixels = torch.stack([clean_bicubic(image, _INCEPTION_SIDE) for image in images])
            found: Tensor = network(pixels.to(device), return_features=True)
            return found

        with torch.no_grad():
            shape = features([Image.new("RGB", (_INCEPTION_SIDE, _INCEPTION_SIDE))]).shape
    except (RuntimeError, AttributeError) as error:
        reason = first_line(error)
        raise DiffCRError(
            f"{path} is not the TorchScript file of Inception ({reason}): get {_INCEPTION_SOURCE}"
        ) from error
    if len(shape) != 2:
        raise DiffCRError(
            f"{path} returns features of shape {tuple(shape)}: get {_INCEPTION_SOURCE}"
        )
    resizer = f"clean bicubic {_INCEPTION_SIDE}"
    return FeatureNetwork(
        {"model": path.name, "model_sha256": digest, "resizer": resizer}, features
    )


def load_dinov2(name: str, device: str) -> FeatureNetwork:
    """The normalised class token of a DINOv2 (Stein et al., 2023), positions interpolated to 224
    pixels; of a local directory or the local Hub cache, see `load_model`."""
    from transformers import Dinov2Model

    network = load_model(Dinov2Model, name, device)

    def features(images: Sequence[Image.Image]) -> Tensor:
        pixels = IMAGENET(torch.stack([squash(image, _DINOV2_SIDE) for image in images]))
        found: Tensor = network(pixel_values=pixels.to(device)).pooler_output
        return found

    resizer = f"bicubic {_DINOV2_SIDE}, proportions given up"
    return FeatureNetwork({"model": model_name(name), "resizer": resizer}, features)


@dataclass(frozen=True)
class Resizing:
    """How pictures come to a CLIP's size.

    Attributes:
        name: For the record.
        resize: RGB picture and side of the input to [3, side, side] float32, black 0 and white 1.
    """

    name: str
    resize: Callable[[Image.Image, int], Tensor]


CLIP_SCORE = Resizing("bicubic on the shorter side, centre", resize_then_crop)
CMMD = Resizing("centre, bicubic", crop_then_resize)
HPS = Resizing("antialiased bicubic on the longer side, black beside", resize_then_pad)


def load_clip(name: str, resizing: Resizing, device: str) -> FeatureNetwork:
    """Image embeddings of norm 1 of a CLIP, of a local directory or the local Hub cache; see
    `load_model`."""
    from transformers import CLIPModel

    network = load_model(CLIPModel, name, device)
    return clip_images(network, name, resizing, device)


def clip_images(network: Any, name: str, resizing: Resizing, device: str) -> FeatureNetwork:
    """The image side of a `CLIPModel` that is on the device."""
    side = int(network.config.vision_config.image_size)

    def features(images: Sequence[Image.Image]) -> Tensor:
        pixels = CLIP(torch.stack([resizing.resize(image, side) for image in images]))
        pooled = network.vision_model(pixel_values=pixels.to(device)).pooler_output
        return normalize(network.visual_projection(pooled))

    resizer = f"{resizing.name}, {side}"
    return FeatureNetwork({"model": model_name(name), "resizer": resizer}, features)
