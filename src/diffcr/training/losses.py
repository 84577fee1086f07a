"""The losses of a micro-batch: of the objective, and of a teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diffcr.training.objectives.objective import Objective, squared_error

Teacher = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Batch:
    """A micro-batch on its device, as an objective sees it.

    Attributes:
        inputs: Arguments of the model's forward, x_t among them.
        latents: x_0, [B, C, ...].
        noise: epsilon, in the latents' shape.
        timesteps: [B], as in `diffcr.training.objectives`.
        weight: [B] float32, of the error of the prediction.
        prediction: From the first entry of the model's output to what is predicted, in the latents'
            shape or with twice their channels.
    """

    inputs: dict[str, Any]
    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    weight: Tensor
    prediction: Callable[[Any], Tensor]

    def denoised(self, values: Tensor) -> Tensor:
        """Of values [B, C, ...] those of latents that the model denoises: all of them."""
        return values


@dataclass(frozen=True)
class StepLosses:
    """Losses of one micro-batch, scalars in float32.

    Attributes:
        total: What is differentiated, but for the ratio loss.
        diffusion: Weighted diffusion loss, mean over the batch, detached.
        distillation: Squared distance to the teacher's output, weighted over timesteps as the
            prediction's error is, mean over the batch, detached; 0 without a teacher.
    """

    total: Tensor
    diffusion: Tensor
    distillation: Tensor


@dataclass(frozen=True)
class RunLoss:
    """The loss of a run.

    Attributes:
        objective: Of the pipeline's scheduler.
        distillation_weight: What the distillation loss is multiplied with.
        teacher: From the arguments of the model's forward to the first entry of the output that it
            is distilled from; None without distillation.
    """

    objective: Objective
    distillation_weight: float = 0.0
    teacher: Teacher | None = None

    def losses(self, model: nn.Module, batch: Batch) -> StepLosses:
        """Diffusion and distillation loss of a micro-batch that the model is called with."""
        output = batch.denoised(batch.prediction(model(**batch.inputs)[0]).float())
        latents, noise = batch.denoised(batch.latents), batch.denoised(batch.noise)
        errors = self.objective.loss(output, latents, noise, batch.timesteps)
        diffusion = (batch.weight * errors.prediction + errors.variance).mean()
        distillation = torch.zeros_like(diffusion)
        if self.teacher is not None:
            taught = batch.denoised(batch.prediction(self.teacher(batch.inputs)).float())
            distillation = (batch.weight * squared_error(output, taught)).mean()
        total = diffusion + self.distillation_weight * distillation
        return StepLosses(total, diffusion.detach(), distillation.detach())
