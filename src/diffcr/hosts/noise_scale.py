"""How a transformer is told how noisy its input is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffcr.core.regions import TIMESTEPS
from diffcr.errors import DiffCRError


@dataclass(frozen=True)
class NoiseScale:
    """The argument of a transformer's forward that says how noisy its input is.

    Attributes:
        argument: Its name.
        clean: Its value at noise level 0.
        noisy: Its value at noise level 1; between them it is linear.
    """

    argument: str = "timestep"
    clean: float = 0.0
    noisy: float = 1000.0

    def per_sample(self, values: Tensor) -> Tensor:
        """One value for each sample, [B], of one for all, one each, or one for each of their tokens
        or frames [B, ...], where given frames are clean: a sample is as noisy as its noisiest."""
        if values.dim() < 2:
            return values.flatten()
        within = values.flatten(1)
        return within.amax(1) if self.noisy > self.clean else within.amin(1)

    def levels(self, timestep: Any) -> list[float]:
        """Noise level in [0, 1] of each sample, or of all.

        Args:
            timestep: A number, or a tensor with one value or one per sample.

        Raises:
            DiffCRError: There is no timestep, or it is outside the range.
        """
        if timestep is None:
            raise DiffCRError("the transformer was called without a timestep: pass one")
        values = self.per_sample(torch.as_tensor(timestep)).tolist()
        levels = [self.level(float(value)) for value in values]
        for value, level in zip(values, levels, strict=True):
            if not 0 <= level <= 1:
                least, most = sorted((self.clean, self.noisy))
                raise DiffCRError(
                    f"timestep {value:g} is outside [{least:g}, {most:g}]: it lies in no timestep "
                    "region"
                )
        return levels

    def level(self, value: float) -> float:
        """Noise level at a value of the argument."""
        return (value - self.clean) / (self.noisy - self.clean)

    def value(self, noise_level: float) -> float:
        """The argument at a noise level in [0, 1]."""
        return self.clean + noise_level * (self.noisy - self.clean)

    def values(self, timesteps: Tensor) -> Tensor:
        """The argument at timesteps, from 0, clean, to 1000; whole ones stay as they are where the
        argument is counted likewise."""
        if (self.clean, self.noisy) == (0, TIMESTEPS):
            return timesteps
        return self.clean + timesteps / TIMESTEPS * (self.noisy - self.clean)

    def timesteps(self, values: Tensor) -> Tensor:
        """The inverse of `values`."""
        if (self.clean, self.noisy) == (0, TIMESTEPS):
            return values
        return TIMESTEPS * (values - self.clean) / (self.noisy - self.clean)


# Of most classes: steps of a scheduler, from 0 to 1000.
SCHEDULER_STEPS = NoiseScale()

# Of the published schedulers of Cosmos 1; at noise levels 0 and 1 there is no sigma.
_SMALLEST_SIGMA, _LARGEST_SIGMA = 0.002, 80.0


@dataclass(frozen=True)
class QuarterLogSigma(NoiseScale):
    """0.25 log sigma, where the noise level is sigma / (1 + sigma)."""

    clean: float = -math.inf
    noisy: float = math.inf

    def level(self, value: float) -> float:
        """Noise level at a value of the argument."""
        return 1 / (1 + math.exp(-4 * value))

    def value(self, noise_level: float) -> float:
        """The argument at a noise level in [0, 1], within the sigmas of Cosmos 1."""
        sigma = noise_level / max(1 - noise_level, 1 / (1 + _LARGEST_SIGMA))
        return 0.25 * math.log(min(max(sigma, _SMALLEST_SIGMA), _LARGEST_SIGMA))

    def values(self, timesteps: Tensor) -> Tensor:
        """The argument at timesteps, from 0, clean, to 1000, within the same sigmas."""
        sigma = timesteps / (TIMESTEPS - timesteps)
        return 0.25 * sigma.clamp(_SMALLEST_SIGMA, _LARGEST_SIGMA).log()

    def timesteps(self, values: Tensor) -> Tensor:
        """The inverse of `values`."""
        return TIMESTEPS * (4 * values).sigmoid()
