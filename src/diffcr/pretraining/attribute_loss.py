"""What text encoder and judge learn: every attribute of a scene."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from diffcr.scenes import scene_targets
from diffcr.scenes.attributes import BACKGROUND_CLASSES, OBJECT_CLASSES


def stack_targets(scenes: list[Any]) -> dict[str, Tensor]:
    """Targets of scenes as tensors by attribute, [B, places] or [B]."""
    targets = [scene_targets(scene.attributes) for scene in scenes]
    names = ["presence", *OBJECT_CLASSES, *BACKGROUND_CLASSES]
    return {name: torch.tensor([getattr(t, name) for t in targets]) for name in names}


def attribute_loss(logits: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    """Sum of the attributes' cross entropies; absent objects count for presence alone."""
    presence = targets["presence"].float()
    loss = binary_cross_entropy_with_logits(logits["presence"], presence)
    for name, target in targets.items():
        if name != "presence":
            flat = logits[name].flatten(0, -2)
            loss = loss + cross_entropy(flat, target.flatten(), ignore_index=-1)
    return loss
