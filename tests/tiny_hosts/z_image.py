"""Z-Image: lists of samples, one sequence of image and caption, each padded to a multiple of 32."""

from __future__ import annotations

from functools import partial

import torch
from diffusers import ZImageTransformer2DModel
from torch import nn

from tests.tiny_hosts.host import (
    HEADS,
    LEVEL,
    Draws,
    Inputs,
    linear_timesteps,
    tiny_host,
)


def build() -> nn.Module:
    return ZImageTransformer2DModel(
        in_channels=4,
        dim=HEADS * 12,
        n_layers=3,
        n_refiner_layers=2,
        n_heads=HEADS,
        n_kv_heads=HEADS,
        cap_feat_dim=20,
        axes_dims=[4, 4, 4],
        axes_lens=[128, 16, 16],
    )


def inputs(batch: int, seed: int, caption_rows: tuple[int, ...]) -> Inputs:
    """Samples take the numbers of caption rows in turn."""
    draws = Draws(batch, seed)
    latents, captions = draws.normal(4, 1, 12, 8), draws.normal(max(caption_rows), 20)
    return {
        "x": list(latents.unbind(0)),
        "t": 1 - torch.full((batch,), LEVEL),
        "cap_feats": [
            caption[: caption_rows[i % len(caption_rows)]] for i, caption in enumerate(captions)
        ],
        "return_dict": False,
    }


HOSTS = tuple(
    tiny_host(
        ZImageTransformer2DModel,
        build,
        partial(inputs, caption_rows=caption_rows),
        6 * 4,
        linear_timesteps(noisy=0, clean=1, argument="t"),
        variant,
    )
    for variant, caption_rows in (("", (7, 5, 6)), ("ragged", (37, 5, 6)))
)
