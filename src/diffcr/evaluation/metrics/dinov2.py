"""DINOv2's class token, the features of FD-DINOv2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from diffcr.evaluation.metrics.local_model import load_model, model_name
from diffcr.evaluation.metrics.preprocessing import IMAGENET, squash

_SIDE = 224


@dataclass(frozen=True)
class DINOv2:
    """The normalised class token (Stein et al., 2023); positions are interpolated to 224 pixels.

    Attributes:
        network: `Dinov2Model` of transformers.
        name: For the record.
        device: That the network is on.
    """

    network: nn.Module
    name: str
    device: str

    @property
    def description(self) -> dict[str, str]:
        """Model and resizing."""
        return {"model": self.name, "resizer": f"bicubic {_SIDE}, proportions given up"}

    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """[B, F] float32."""
        pixels = IMAGENET(torch.stack([squash(image, _SIDE) for image in images]))
        features: Tensor = self.network(pixel_values=pixels.to(self.device)).pooler_output
        return features


def load_dinov2(name: str, device: str) -> DINOv2:
    """A DINOv2 of a local directory or the local Hub cache; see `load_model`."""
    from transformers import Dinov2Model

    return DINOv2(load_model(Dinov2Model, name, device), model_name(name), device)
