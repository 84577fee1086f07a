"""The loss against a plain transcription of its formulas in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler

from diffcr.errors import DiffCRError
from diffcr.training.objective import Batch, NoiseSchedule, Objective, diffusion_loss

SCHEDULER = DPMSolverMultistepScheduler(
    beta_start=1e-4, beta_end=0.02, beta_schedule="linear", num_train_timesteps=1000
)


def _reference(
    output: np.ndarray, x0: np.ndarray, noise: np.ndarray, t: int
) -> tuple[float, float]:
    betas = np.linspace(1e-4, 0.02, 1000)
    bar = np.cumprod(1 - betas)
    before = np.append(1.0, bar[:-1])
    xt = np.sqrt(bar[t]) * x0 + np.sqrt(1 - bar[t]) * noise
    eps, v = output[: len(x0)], output[len(x0) :]
    posterior = betas * (1 - before) / (1 - bar)
    low = np.log(posterior[max(t, 1)])
    log_var = (v + 1) / 2 * np.log(betas[t]) + (1 - v) / 2 * low
    first = betas[t] * np.sqrt(before[t]) / (1 - bar[t])
    second = (1 - before[t]) * np.sqrt(1 - betas[t]) / (1 - bar[t])
    mean = first * (xt - np.sqrt(1 - bar[t]) * eps) / np.sqrt(bar[t]) + second * xt
    true_mean = first * x0 + second * xt
    kl = 0.5 * (
        -1 + log_var - low + np.exp(low - log_var) + (true_mean - mean) ** 2 * np.exp(-log_var)
    )
    return float(np.mean((eps - noise) ** 2)), float(np.mean(kl) / np.log(2))


@pytest.mark.parametrize("timestep", [1, 17, 500, 999])
def test_noise_and_variance_terms(timestep: int) -> None:
    torch.manual_seed(0)
    latents, noise = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    output = torch.randn(3, 4, 4, 4)
    t = torch.full((3,), timestep)
    loss = diffusion_loss(NoiseSchedule.of(SCHEDULER), output, latents, noise, t)
    for i in range(3):
        expected = _reference(
            output[i].double().numpy(),
            latents[i].double().numpy(),
            noise[i].double().numpy(),
            timestep,
        )
        assert loss.noise[i].item() == pytest.approx(expected[0], rel=1e-5)
        assert loss.variance[i].item() == pytest.approx(expected[1], rel=2e-3)


def test_the_variance_term_trains_the_variance_alone() -> None:
    output = torch.randn(2, 4, 4, 4, requires_grad=True)
    latents, noise = torch.randn(2, 2, 4, 4), torch.randn(2, 2, 4, 4)
    loss = diffusion_loss(
        NoiseSchedule.of(SCHEDULER), output, latents, noise, torch.tensor([0, 400])
    )
    loss.variance.sum().backward()
    assert output.grad is not None
    assert output.grad[:, :2].abs().max() == 0
    assert output.grad[:, 2:].abs().min() > 0
    assert loss.total.isfinite().all()


def test_the_weight_over_timesteps_is_of_the_noise_error_alone() -> None:
    torch.manual_seed(0)
    latents, noise, output = (
        torch.randn(2, 2, 4, 4),
        torch.randn(2, 2, 4, 4),
        torch.randn(2, 4, 4, 4),
    )
    timesteps, taught = torch.tensor([700, 950]), torch.randn(2, 4, 4, 4)
    schedule = NoiseSchedule.of(SCHEDULER)
    weight = schedule.loss_weight(timesteps, 50.0)
    assert weight.min() > 2
    errors = diffusion_loss(schedule, output, latents, noise, timesteps)
    objective = Objective(schedule, 50.0, 0.5, lambda _: taught)
    found = objective.losses(lambda: (output,), Batch({}, latents, noise, timesteps))  # type: ignore[arg-type]
    diffusion = (weight * errors.noise + errors.variance).mean()
    distance = (weight * (output - taught).square().flatten(1).mean(1)).mean()
    assert float(found.diffusion) == pytest.approx(float(diffusion))
    assert float(found.distillation) == pytest.approx(float(distance))
    assert float(found.total) == pytest.approx(float(diffusion + 0.5 * distance))


@pytest.mark.parametrize("largest", [1.0, 5.0])
def test_the_weight_over_timesteps_has_an_end(largest: float) -> None:
    weights = NoiseSchedule.of(SCHEDULER).loss_weight(torch.arange(1000), largest)
    assert float(weights.max()) == largest and weights.min() >= 1
    assert (weights.diff() >= 0).all()


def test_a_model_without_learned_sigma_has_no_variance_term() -> None:
    latents, noise = torch.randn(2, 2, 4, 4), torch.randn(2, 2, 4, 4)
    loss = diffusion_loss(
        NoiseSchedule.of(SCHEDULER), noise.clone(), latents, noise, torch.tensor([3, 9])
    )
    assert loss.total.tolist() == [0, 0]


def test_another_prediction_type_is_refused() -> None:
    with pytest.raises(DiffCRError, match="v_prediction"):
        NoiseSchedule.of(DDPMScheduler(prediction_type="v_prediction"))
