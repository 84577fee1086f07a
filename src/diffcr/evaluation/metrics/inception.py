"""The Inception network of FID and KID, from the TorchScript file that StyleGAN's code uses."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.evaluation.metrics.preprocessing import clean_bicubic

_SIDE = 299
_SOURCE = (
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
    "inception-2015-12-05.pt"
)


@dataclass(frozen=True)
class Inception:
    """Inception with its 2048 pooled features.

    Attributes:
        network: Called with pictures [B, 3, 299, 299] in [0, 255] and `return_features=True`.
        file: Its name.
        sha256: Of the file.
        device: That the network is on.
    """

    network: Any
    file: str
    sha256: str
    device: str

    @property
    def description(self) -> dict[str, str]:
        """File, its hash, and the resizing, which numbers are comparable by."""
        return {"model": self.file, "model_sha256": self.sha256, "resizer": "clean bicubic 299"}

    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """[B, F] float32. At 299 x 299 the file's own resizing changes nothing but rounding."""
        pixels = torch.stack([clean_bicubic(image, _SIDE) for image in images])
        features: Tensor = self.network(pixels.to(self.device), return_features=True)
        return features


def load_inception(path: Path, device: str) -> Inception:
    """The network of a local file. Nothing is downloaded.

    A TorchScript file is a program that runs as it is loaded and called: give one whose source you
    trust.

    Raises:
        DiffCRError: The file is missing, or no TorchScript that returns features.
    """
    if not path.is_file():
        raise DiffCRError(f"{path} is missing: save {_SOURCE} there")
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        inception = Inception(network, path.name, digest, device)
        with torch.no_grad():
            shape = inception.features([Image.new("RGB", (_SIDE, _SIDE))]).shape
    except (RuntimeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DiffCRError(
            f"{path} is not the TorchScript file of Inception ({reason}): get {_SOURCE}"
        ) from error
    if len(shape) != 2:
        raise DiffCRError(f"{path} returns features of shape {tuple(shape)}: get {_SOURCE}")
    return inception
