"""Features of a directory of pictures, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from diffcr.evaluation.metrics.images import ImageDirectory


class FeatureNetwork(Protocol):
    """A network that describes a picture by a vector, whatever the other pictures of a batch."""

    @property
    def description(self) -> Mapping[str, str]:
        """Model and resizing, for the record."""

    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """[B, F] float32 of RGB pictures, which may differ in size."""


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
