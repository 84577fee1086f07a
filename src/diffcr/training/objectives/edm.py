"""Models that are preconditioned by sigma (Karras et al. 2022, Sec. 5 and Table 1), as Cosmos 1.

A noisy sample is sigma_data x_0 + sigma epsilon, and what the model is given is scaled to a
deviation of 1: cos(a) x_0 + sin(a) epsilon, with tan(a) = sigma / sigma_data. What it gives is then
the velocity of Salimans & Ho (2022), and a squared error of it is EDM's weighted one of x_0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffcr.core.regions import TIMESTEPS
from diffcr.training.objectives.objective import (
    DiffusionLoss,
    NoiseDraw,
    Objective,
    per_sample,
    squared_error,
)


@dataclass(frozen=True)
class PreconditionedVelocity(Objective):
    """The model predicts cos(a) epsilon - sin(a) x_0, or that with its sign turned; its timesteps
    are 1000 sigma / (1 + sigma).

    Attributes:
        sigma_data: Deviation of the data; x_0 has 1.
        smallest, largest: Of sigma.
        sign: 1 for the scheduler's prediction type "v_prediction", -1 for "epsilon".
    """

    sigma_data: float = 0.5
    smallest: float = 0.002
    largest: float = 80.0
    sign: int = -1

    @classmethod
    def of(cls, scheduler: Any) -> PreconditionedVelocity:
        """From `EDMEulerScheduler` or `EDMDPMSolverMultistepScheduler` of diffusers."""
        config = scheduler.config
        sign = 1 if config.prediction_type == "v_prediction" else -1
        return cls(config.sigma_data, config.sigma_min, config.sigma_max, sign)

    def draw(self, timesteps: Tensor, regions: int, tokens: int) -> NoiseDraw:
        """The middles of the given ones, within their region and the range of sigma: its logarithm
        is then distributed about 0, as EDM's is, with a deviation of 1.8."""
        least, most = (TIMESTEPS * s / (1 + s) for s in (self.smallest, self.largest))
        region = (timesteps.double() * regions / TIMESTEPS).floor()
        middles = torch.minimum(timesteps + 0.5, (region + 1) * TIMESTEPS / regions - 1e-3)
        levels = middles.clamp(least, most)
        return NoiseDraw(levels.float(), torch.ones_like(timesteps, dtype=torch.float32))

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t of x_0 and epsilon as the model is given it."""
        signal, level = self._weights(timesteps, latents)
        return signal * latents + level * noise

    def loss(
        self, prediction: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor
    ) -> DiffusionLoss:
        """Squared error of the velocity."""
        signal, level = self._weights(timesteps, latents)
        error = squared_error(prediction.float(), self.sign * (signal * noise - level * latents))
        return DiffusionLoss(error, torch.zeros_like(error))

    def _weights(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """cos(a) and sin(a)."""
        angle = (timesteps / (TIMESTEPS - timesteps) / self.sigma_data).atan()
        return per_sample(angle.cos(), like), per_sample(angle.sin(), like)
