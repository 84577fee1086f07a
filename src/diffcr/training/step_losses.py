"""The losses of one micro-batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diffcr.training.draws import MicroBatch
from diffcr.training.objective import NoiseSchedule, diffusion_loss
from diffcr.training.recipe import TrainingRecipe
from diffcr.training.task import Task

Teacher = Callable[[Mapping[str, Any]], Tensor]


@dataclass(frozen=True)
class StepLosses:
    """Losses of one micro-batch.

    Attributes:
        total: Scalar with gradient.
        diffusion: Mean over the batch, detached.
        distillation: The same of the squared distance to the dense model's output, weighted over
            timesteps as the noise error is; 0 without a teacher.
    """

    total: Tensor
    diffusion: Tensor
    distillation: Tensor


def forward_losses(
    model: nn.Module,
    task: Task,
    schedule: NoiseSchedule,
    draw: MicroBatch,
    recipe: TrainingRecipe,
    device: torch.device,
    teacher: Teacher | None = None,
) -> StepLosses:
    """Diffusion loss, and distillation loss where asked for, of one micro-batch.

    Args:
        model: What is called: the task's model as accelerate wraps it.
        task: Of the run.
        schedule: Of the pipeline's scheduler.
        draw: This process's part of the draws.
        recipe: Of the run.
        device: Of the model.
        teacher: Of the distillation loss.
    """
    batch = task.batch(draw, schedule, device)
    output = task.denoised(model(**batch.inputs)[0].float(), batch)
    latents, noise = task.denoised(batch.latents, batch), task.denoised(batch.noise, batch)
    losses = diffusion_loss(schedule, output, latents, noise, batch.timesteps)
    weight = schedule.loss_weight(batch.timesteps, recipe.largest_loss_weight)
    diffusion = (weight * losses.noise + losses.variance).mean()
    distillation = torch.zeros((), device=device)
    if teacher is not None:
        taught = task.denoised(teacher(batch.inputs).float(), batch)
        distillation = (weight * (output - taught).square().flatten(1).mean(1)).mean()
    total = diffusion + recipe.distillation_weight * distillation
    return StepLosses(total, diffusion.detach(), distillation.detach())
