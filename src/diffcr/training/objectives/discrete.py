"""Schedulers with discrete timesteps: noise, with or without a learned variance, and velocity.

The loss of noise prediction is IDDPM's (Nichol & Dhariwal 2021: L_hybrid, eq. 16, with the variance
interpolated in the log domain, eq. 15, and the mean detached in the variational term).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffcr.training.objectives.objective import (
    DiffusionLoss,
    NoiseDraw,
    Objective,
    squared_error,
)
from diffcr.training.objectives.schedule import NoiseSchedule, variational_bound


@dataclass(frozen=True)
class NoisePrediction(Objective):
    """The model predicts epsilon, and the variance's place between its ends where it has twice the
    latents' channels.

    Attributes:
        schedule: Of the scheduler.
        largest_loss_weight: Truncation of the weight over timesteps, `NoiseSchedule.loss_weight`.
    """

    schedule: NoiseSchedule
    largest_loss_weight: float = 1.0

    def draw(self, timesteps: Tensor, regions: int, tokens: int) -> NoiseDraw:
        """As they are, weighted."""
        return NoiseDraw(timesteps, self.schedule.loss_weight(timesteps, self.largest_loss_weight))

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """As in `Objective`."""
        return self.schedule.add_noise(latents, noise, timesteps)

    def loss(
        self, prediction: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor
    ) -> DiffusionLoss:
        """L_hybrid of a batch."""
        output = prediction.float()
        channels = latents.shape[1]
        predicted = output[:, :channels]
        error = squared_error(predicted, noise)
        if output.shape[1] == channels:
            return DiffusionLoss(error, torch.zeros_like(error))
        bound = variational_bound(
            self.schedule, predicted.detach(), output[:, channels:], latents, noise, timesteps
        )
        return DiffusionLoss(error, bound)


@dataclass(frozen=True)
class VelocityPrediction(Objective):
    """The model predicts v = signal epsilon - noise x_0 (Salimans & Ho 2022, Sec. 4).

    Attributes:
        schedule: Of the scheduler.
    """

    schedule: NoiseSchedule

    def draw(self, timesteps: Tensor, regions: int, tokens: int) -> NoiseDraw:
        """As they are; the error of v is not weighted."""
        return NoiseDraw(timesteps, torch.ones_like(timesteps, dtype=torch.float32))

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """As in `Objective`."""
        return self.schedule.add_noise(latents, noise, timesteps)

    def loss(
        self, prediction: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor
    ) -> DiffusionLoss:
        """Squared error of v."""
        signal, level = (
            self.schedule.at(values, timesteps, latents)
            for values in (self.schedule.signal, self.schedule.noise)
        )
        error = squared_error(prediction.float(), signal * noise - level * latents)
        return DiffusionLoss(error, torch.zeros_like(error))
