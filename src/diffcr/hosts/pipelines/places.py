"""Places of packed tokens, as rotary embeddings count them."""

from __future__ import annotations

import torch
from torch import Tensor


def places(device: torch.device, *sides: int) -> Tensor:
    """Of a grid with so many places on each axis, [N, axes] int64, the last axis fastest."""
    return torch.cartesian_prod(*(torch.arange(side, device=device) for side in sides))


def image_places(latents: Tensor, packed: int = 2) -> Tensor:
    """Of the tokens of latents [B, C, h, w], each of `packed` x `packed`: [N, 3] in the latents'
    dtype, picture, row and column."""
    rows, columns = (side // packed for side in latents.shape[2:])
    return places(latents.device, 1, rows, columns).to(latents.dtype)


def diagonal_places(embeds: Tensor) -> Tensor:
    """Of the tokens of prompts [B, T, D] where the n-th stands in row n and column n: [T, 3] in
    float32."""
    row = torch.arange(embeds.shape[1], dtype=torch.float32, device=embeds.device)
    return torch.stack([torch.zeros_like(row), row, row], dim=1)
