"""What a model is to predict.

Shapes: B samples, latents [B, C, h, w] or [B, C, f, h, w]. Timesteps count from 0, clean, to 1000,
where a latent is noise alone: whole ones of a scheduler with discrete steps, any of a flow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class DiffusionLoss:
    """Per-sample losses, [B] float32.

    Attributes:
        prediction: Mean squared error of the predicted noise, or velocity.
        variance: Variational bound in bits per dimension, 0 for a model without learned sigma.
    """

    prediction: Tensor
    variance: Tensor

    @property
    def total(self) -> Tensor:
        """Their sum, [B]."""
        return self.prediction + self.variance


@dataclass(frozen=True)
class NoiseDraw:
    """How noisy the samples of a micro-batch are.

    Attributes:
        timesteps: [B].
        weight: [B] float32, of the error of the prediction in the loss.
    """

    timesteps: Tensor
    weight: Tensor


class Objective(ABC):
    """What a scheduler's model predicts, at which noise levels, and how far it is off."""

    @abstractmethod
    def draw(self, timesteps: Tensor, regions: int, tokens: int) -> NoiseDraw:
        """Timesteps to train at.

        Args:
            timesteps: [B] int64, 0 to 999, uniform in their timestep region.
            regions: Timestep regions, each of which is drawn as often as another.
            tokens: Of a sample's latents, which some pipelines shift their noise levels by.
        """

    @abstractmethod
    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t of x_0 and epsilon, in their shape."""

    @abstractmethod
    def loss(
        self, prediction: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor
    ) -> DiffusionLoss:
        """Of what a model says of x_t.

        Args:
            prediction: In the latents' shape, or [B, 2 C, ...] with a learned variance.
            latents, noise: x_0 and epsilon.
            timesteps: [B].
        """


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over a sample, [B] float32."""
    return (prediction - target).square().flatten(1).mean(1)


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Values [B], shaped to multiply `like` [B, ...], on its device and in its dtype."""
    return values.to(like).view(-1, *[1] * (like.dim() - 1))
