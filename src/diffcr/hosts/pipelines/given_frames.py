"""Models that take more channels than they give: of given frames, or of what is to be filled in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def with_no_given_frames(latents: Tensor) -> Tensor:
    """Latents [B, C, f, h, w] with zeros for given frames and their mask, [B, 2 C + 1, f, h, w], as
    text-to-video pipelines make them for models that also continue pictures."""
    return torch.cat([latents, torch.zeros_like(latents), torch.zeros_like(latents[:, :1])], 1)


def given_beside(config: Any, packed: int = 1) -> str | None:
    """Why a model that takes more channels than it gives is not trained: the others hold a first
    frame, or what is to be filled in.

    Args:
        config: Of the transformer.
        packed: Channels of its input for one of `out_channels`.
    """
    given = packed * (config.get("out_channels") or config.in_channels)
    if given == config.in_channels:
        return None
    return (
        f"it takes {config.in_channels} channels and gives {given}; what it is given beside the "
        "noisy latents is not known in training"
    )
