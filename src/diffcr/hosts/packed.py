"""Tokens that come packed, [B, N, C], with their places in a tensor of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.hosts.calls import unpack_latents
from diffcr.hosts.family import Grid, packed_patch

# Fields of families whose pipelines pack 2 x 2 latents into a token.
PACKED: Mapping[str, Any] = {
    "prediction": unpack_latents,
    "latent_channels": lambda config: int(config.in_channels) // 4,
    "patch": packed_patch,
}


def packed_grid(transformer: Any, arguments: Mapping[str, Any]) -> Grid:
    """Of the tokens in the argument `hidden_states`: their number."""
    return Grid(0, 0, beside=arguments["hidden_states"].shape[1])


def grid_of_image_ids(transformer: Any, arguments: Mapping[str, Any]) -> Grid:
    """From the argument `img_ids`, [N, 3 or more] or [B, N, 3 or more], as `grid_of_places`."""
    return grid_of_places(arguments["img_ids"])


def grid_of_places(ids: Tensor) -> Grid:
    """The grid of the first picture among the tokens; what follows it are references.

    Args:
        ids: [N, 3 or more] or [B, N, 3 or more]: which picture, row, column. A batch has one grid.

    Raises:
        DiffCRError: The first picture's tokens are no grid, row by row.
    """
    if ids.is_meta:
        raise DiffCRError("operations of a method that asks for places cannot be counted")
    # One copy: an accelerator is waited for once.
    picture, row, column = (ids[0] if ids.dim() == 3 else ids)[:, :3].cpu().long().unbind(1)
    others = (picture != picture[0]).nonzero()
    tokens = int(others[0]) if len(others) else len(picture)
    row, column = row[:tokens] - row[0], column[:tokens] - column[0]
    rows, columns = int(row.max()) + 1, int(column.max()) + 1
    if not torch.equal(row * columns + column, torch.arange(rows * columns)):
        raise DiffCRError(
            f"the places of a call's {tokens} tokens are no grid of {rows} x {columns}, row by row"
        )
    return Grid(rows, columns, beside=len(picture) - tokens)
