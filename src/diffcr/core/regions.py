"""Timestep regions: equal parts of the noise range (Sec. 3.4)."""

from __future__ import annotations

from math import ceil

import torch

TIMESTEPS = 1000


def region_of(noise_level: float, regions: int) -> int:
    """Timestep region of a noise level in [0, 1]: 0 is the cleanest (Sec. 3.4).

    The product is taken in float32, as hosts do with their timesteps.
    """
    level = torch.tensor(noise_level, dtype=torch.float32)
    return min(int(level * regions), regions - 1)


def region_timesteps(region: int, regions: int) -> range:
    """The timesteps 0 to 999 of a region."""
    return range(_first_timestep(region, regions), _first_timestep(region + 1, regions))


def _first_timestep(region: int, regions: int) -> int:
    """The first one of a region; their number for the region behind the last."""
    first = ceil(region * TIMESTEPS / regions)
    # Float32 rounds a product at an edge into either region.
    while first < TIMESTEPS and region_of(first / TIMESTEPS, regions) < region:
        first += 1
    while first > 0 and region_of((first - 1) / TIMESTEPS, regions) >= region:
        first -= 1
    return first
