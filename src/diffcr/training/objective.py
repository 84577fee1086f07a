"""What a model is to predict, and how its errors are weighted.

The diffusion loss is noise prediction with learned variance (IDDPM; Nichol & Dhariwal 2021:
L_hybrid, eq. 16, with the variance interpolated in the log domain, eq. 15, and the mean detached in
the variational term). `NoiseSchedule` says what a noisy sample is and what an error at a timestep
weighs, `diffusion_loss` what the output is held to; `Objective` puts both and a teacher together.
Shapes: B samples, C latent channels, h x w latents, T timesteps of the schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log, pi, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from diffcr.errors import DiffCRError

Teacher = Callable[[Mapping[str, Any]], Tensor]


@dataclass(frozen=True)
class NoiseSchedule:
    """The forward process of a scheduler, float64 tensors [T] on the CPU.

    Attributes:
        signal: Weight of x_0 in x_t, sqrt of the cumulative product of alphas.
        noise: Weight of epsilon in it, sqrt of one minus that product.
        log_beta: Log of beta, the upper end of the learned variance.
        log_posterior_variance: Log of the posterior's, the lower end; the first entry, which would
            be infinite, is the second.
        posterior_from_start: Weight of x_0 in the posterior mean.
        posterior_from_present: Weight of x_t in it.
    """

    signal: Tensor
    noise: Tensor
    log_beta: Tensor
    log_posterior_variance: Tensor
    posterior_from_start: Tensor
    posterior_from_present: Tensor

    @classmethod
    def of(cls, scheduler: Any) -> NoiseSchedule:
        """From a diffusers scheduler.

        Raises:
            DiffCRError: The scheduler does not predict noise over discrete timesteps.
        """
        prediction = scheduler.config.get("prediction_type", "epsilon")
        if prediction != "epsilon" or not hasattr(scheduler, "alphas_cumprod"):
            raise DiffCRError(
                f"{type(scheduler).__name__} with prediction_type {prediction!r} cannot be trained "
                "with the IDDPM loss: use a DDPM-like scheduler with prediction_type 'epsilon'"
            )
        kept = torch.as_tensor(scheduler.alphas_cumprod).double().cpu()
        before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
        alphas = kept / before
        betas = 1 - alphas
        variance = betas * (1 - before) / (1 - kept)
        variance[0] = variance[1]
        return cls(
            signal=kept.sqrt(),
            noise=(1 - kept).sqrt(),
            log_beta=betas.log(),
            log_posterior_variance=variance.log(),
            posterior_from_start=betas * before.sqrt() / (1 - kept),
            posterior_from_present=(1 - before) * alphas.sqrt() / (1 - kept),
        )

    def at(self, values: Tensor, timesteps: Tensor, like: Tensor) -> Tensor:
        """Entries of one of the tensors, shaped to multiply `like` [B, ...]."""
        picked = values.to(like.device)[timesteps].to(like.dtype)
        return picked.view(-1, *[1] * (like.dim() - 1))

    def loss_weight(self, timesteps: Tensor, largest: float) -> Tensor:
        """min(1 + 1 / SNR, largest) for timesteps [B]: the noise error weighted so is the error of
        the velocity (Salimans & Ho 2022, Sec. 4), up to the truncation. 1 leaves it as it is."""
        inverse = (1 / self.signal.square()).clamp(max=largest)
        return inverse.to(timesteps.device)[timesteps].float()

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t, [B, C, h, w]."""
        signal = self.at(self.signal, timesteps, latents)
        return signal * latents + self.at(self.noise, timesteps, latents) * noise


@dataclass(frozen=True)
class DiffusionLoss:
    """Per-sample losses, [B] float32.

    Attributes:
        noise: Mean squared error of the predicted noise.
        variance: Variational bound in bits per dimension, 0 for a model without learned sigma.
    """

    noise: Tensor
    variance: Tensor

    @property
    def total(self) -> Tensor:
        """Their sum, [B]."""
        return self.noise + self.variance


def diffusion_loss(
    schedule: NoiseSchedule, output: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor
) -> DiffusionLoss:
    """L_hybrid of one batch.

    Args:
        schedule: Of the pipeline's scheduler.
        output: [B, C or 2 C, h, w], the predicted noise and, with 2 C, the variance's position
            between its ends, in [-1, 1] where trained.
        latents, noise: [B, C, h, w], x_0 and epsilon.
        timesteps: [B] int64.
    """
    output = output.float()
    channels = latents.shape[1]
    predicted = output[:, :channels]
    per_sample = (predicted - noise).square().flatten(1).mean(1)
    if output.shape[1] == channels:
        return DiffusionLoss(per_sample, torch.zeros_like(per_sample))
    bound = _variational_bound(
        schedule, predicted.detach(), output[:, channels:], latents, noise, timesteps
    )
    return DiffusionLoss(per_sample, bound)


def _variational_bound(
    schedule: NoiseSchedule,
    predicted: Tensor,
    position: Tensor,
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
) -> Tensor:
    def at(values: Tensor) -> Tensor:
        return schedule.at(values, timesteps, latents)

    noisy = schedule.add_noise(latents, noise, timesteps)
    start = (noisy - at(schedule.noise) * predicted) / at(schedule.signal)
    from_present = at(schedule.posterior_from_present) * noisy
    mean = at(schedule.posterior_from_start) * start + from_present
    true_mean = at(schedule.posterior_from_start) * latents + from_present
    true_log_variance = at(schedule.log_posterior_variance)
    share = (position + 1) / 2
    log_variance = share * at(schedule.log_beta) + (1 - share) * true_log_variance
    divergence = 0.5 * (
        log_variance
        - true_log_variance
        - 1
        + (true_log_variance - log_variance).exp()
        + (true_mean - mean).square() * (-log_variance).exp()
    )
    likelihood = -_discretised_log_likelihood(latents, mean, 0.5 * log_variance)
    first = (timesteps == 0).view(-1, *[1] * (latents.dim() - 1))
    bits = torch.where(first, likelihood, divergence) / log(2)
    return bits.flatten(1).mean(1)


def _discretised_log_likelihood(values: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log of a Gaussian's mass on a bin of width 2 / 255 (Ho et al. 2020, eq. 13), with the tanh
    approximation of its cumulative distribution that IDDPM's code uses."""
    centred, inverse = values - mean, (-log_scale).exp()
    upper = _normal_cdf(inverse * (centred + 1 / 255))
    lower = _normal_cdf(inverse * (centred - 1 / 255))
    inside = (upper - lower).clamp(min=1e-12).log()
    below, above = upper.clamp(min=1e-12).log(), (1 - lower).clamp(min=1e-12).log()
    return torch.where(values < -0.999, below, torch.where(values > 0.999, above, inside))


def _normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))


@dataclass(frozen=True)
class Batch:
    """A micro-batch on its device, as an objective sees it.

    Attributes:
        inputs: Arguments of the model's forward, x_t among them.
        latents: x_0, [B, C, h, w].
        noise: epsilon, [B, C, h, w].
        timesteps: [B] int64, 0 to T - 1.
    """

    inputs: dict[str, Any]
    latents: Tensor
    noise: Tensor
    timesteps: Tensor

    def denoised(self, values: Tensor) -> Tensor:
        """Of values [B, C, h, w] those of latents that the model denoises: all of them."""
        return values


@dataclass(frozen=True)
class StepLosses:
    """Losses of one micro-batch, scalars in float32.

    Attributes:
        total: What is differentiated, but for the ratio loss.
        diffusion: Weighted diffusion loss, mean over the batch, detached.
        distillation: Squared distance to the teacher's output, weighted over timesteps as the noise
            error is, mean over the batch, detached; 0 without a teacher.
    """

    total: Tensor
    diffusion: Tensor
    distillation: Tensor


@dataclass(frozen=True)
class Objective:
    """The loss of a run.

    Attributes:
        schedule: Of the pipeline's scheduler.
        largest_loss_weight: Truncation of the weight over timesteps, `NoiseSchedule.loss_weight`.
        distillation_weight: What the distillation loss is multiplied with.
        teacher: From the arguments of the model's forward to the output that it is distilled from,
            [B, C or 2 C, h, w]; None without distillation.
    """

    schedule: NoiseSchedule
    largest_loss_weight: float
    distillation_weight: float = 0.0
    teacher: Teacher | None = None

    def losses(self, model: nn.Module, batch: Batch) -> StepLosses:
        """Diffusion and distillation loss of a micro-batch that the model is called with."""
        output = batch.denoised(model(**batch.inputs)[0].float())
        latents, noise = batch.denoised(batch.latents), batch.denoised(batch.noise)
        errors = diffusion_loss(self.schedule, output, latents, noise, batch.timesteps)
        weight = self.schedule.loss_weight(batch.timesteps, self.largest_loss_weight)
        diffusion = (weight * errors.noise + errors.variance).mean()
        distillation = torch.zeros_like(diffusion)
        if self.teacher is not None:
            taught = batch.denoised(self.teacher(batch.inputs).float())
            distillation = (weight * (output - taught).square().flatten(1).mean(1)).mean()
        total = diffusion + self.distillation_weight * distillation
        return StepLosses(total, diffusion.detach(), distillation.detach())
