"""Where the routed tokens of a call lie, from the arguments of the transformer's forward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffcr.errors import DiffCRError


@dataclass(frozen=True)
class Grid:
    """Where the routed tokens of a sample lie.

    Attributes:
        rows: Of the grid of patches; 0 where a call does not say it.
        columns: Likewise.
        frames: Of a video, each with a grid of its own.
        beside: Routed tokens that are on no grid, behind the others, such as references'.
    """

    rows: int
    columns: int
    frames: int = 1
    beside: int = 0

    @property
    def tokens(self) -> int:
        """All routed tokens of a sample."""
        return self.frames * self.rows * self.columns + self.beside


def config_patch(config: Any) -> tuple[int, int, int]:
    """Frames, rows and columns of the latents that become one token."""
    patch = getattr(config, "patch_size", 1)
    if isinstance(patch, int):
        return getattr(config, "patch_size_t", None) or 1, patch, patch
    frames, rows, columns = (1, *patch)[-3:]
    return frames, rows, columns


def latents_grid(transformer: Any, arguments: Mapping[str, Any]) -> Grid:
    """Of latents [..., h, w], or [B, C, frames, h, w], in the argument `hidden_states`, cut into
    the configuration's patches."""
    latents: Tensor = arguments["hidden_states"]
    patch = config_patch(transformer.config)
    frames = latents.shape[2] // patch[0] if latents.dim() == 5 else 1
    return Grid(latents.shape[-2] // patch[1], latents.shape[-1] // patch[2], frames)


def frames_first_grid(transformer: Any, arguments: Mapping[str, Any]) -> Grid:
    """The same of latents [B, frames, C, h, w]."""
    _, frames, _, height, width = arguments["hidden_states"].shape
    patch = config_patch(transformer.config)
    return Grid(height // patch[1], width // patch[2], frames // patch[0])


def channels_last_grid(transformer: Any, arguments: Mapping[str, Any]) -> Grid:
    """The same of latents [B, frames, h, w, C]."""
    _, frames, height, width, _ = arguments["hidden_states"].shape
    patch = config_patch(transformer.config)
    return Grid(height // patch[1], width // patch[2], frames // patch[0])


def packed_grid(transformer: Any, arguments: Mapping[str, Any]) -> Grid:
    """Of the tokens in the argument `hidden_states`, [B, N, C], that come packed: their number."""
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
