"""The noise of schedulers with discrete timesteps, and the variational bound of a learned variance.

Shapes: B samples, T timesteps of the schedule.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi, sqrt
from typing import Any

import torch
from torch import Tensor


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
        """From a diffusers scheduler with discrete timesteps."""
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


def variational_bound(
    schedule: NoiseSchedule,
    predicted: Tensor,
    position: Tensor,
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
) -> Tensor:
    """Of the variance that a model learns, with its mean detached, in bits per dimension.

    Args:
        schedule: Of the scheduler.
        predicted: [B, C, ...], the noise.
        position: [B, C, ...], of the variance between its ends, in [-1, 1] where trained.
        latents, noise: [B, C, ...], x_0 and epsilon.
        timesteps: [B] int64.

    Returns:
        [B].
    """

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
