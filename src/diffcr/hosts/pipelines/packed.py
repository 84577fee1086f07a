"""Latents that a pipeline makes tokens of, and its transformer's output as latents again."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from diffcr.hosts.pipelines.call import PipelineCall


def latents_as_tokens(latents: Tensor) -> Tensor:
    """Latents [B, C, ...] as tokens of one each, [B, N, C]."""
    return latents.flatten(2).transpose(1, 2)


def tokens_as_latents(transformer: Any, output: Tensor, latents: Tensor) -> Tensor:
    """The tokens of `latents_as_tokens` as latents again, in the layout of `latents`."""
    return output.transpose(1, 2).reshape(latents.shape)


def pack_latents(latents: Tensor) -> Tensor:
    """Squares of 2 x 2 latents [B, C, h, w] as tokens [B, h w / 4, 4 C] (diffusers,
    pipeline_flux.py: `_pack_latents`)."""
    squares = latents.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # [B, C, rows, 2, columns, 2]
    packed: Tensor = squares.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    return packed


def unpack_latents(transformer: Any, output: Tensor, latents: Tensor) -> Tensor:
    """The tokens of `pack_latents` as latents again, [B, C, h, w] as `latents` are."""
    rows, columns = (side // 2 for side in latents.shape[2:])
    squares = output.unflatten(2, (-1, 2, 2)).unflatten(1, (rows, columns))
    latent: Tensor = squares.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
    return latent


# Of families whose pipelines pack 2 x 2 latents into a token.
PACKED_CALL = PipelineCall(
    prediction=unpack_latents,
    latent_channels=lambda config: int(config.in_channels) // 4,
    patch=lambda config: (1, 2, 2),
)
