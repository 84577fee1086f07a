"""Objectives against plain transcriptions of their formulas, and against diffusers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.training_utils import compute_density_for_timestep_sampling
from torch import Tensor

from diffcr.core.regions import region_of
from diffcr.errors import DiffCRError
from diffcr.training.losses import Batch, RunLoss
from diffcr.training.objectives import FlowMatching, objective_of

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
    loss = objective_of(SCHEDULER).loss(output, latents, noise, t)
    for i in range(3):
        expected = _reference(
            output[i].double().numpy(),
            latents[i].double().numpy(),
            noise[i].double().numpy(),
            timestep,
        )
        assert loss.prediction[i].item() == pytest.approx(expected[0], rel=1e-5)
        assert loss.variance[i].item() == pytest.approx(expected[1], rel=2e-3)


def test_the_variance_term_trains_the_variance_alone() -> None:
    output = torch.randn(2, 4, 4, 4, requires_grad=True)
    latents, noise = torch.randn(2, 2, 4, 4), torch.randn(2, 2, 4, 4)
    loss = objective_of(SCHEDULER).loss(output, latents, noise, torch.tensor([0, 400]))
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
    objective = objective_of(SCHEDULER, 50.0)
    weight = objective.draw(timesteps, 1, 16).weight
    assert weight.min() > 2
    errors = objective.loss(output, latents, noise, timesteps)
    loss = RunLoss(objective, 0.5, lambda _: taught)
    batch = Batch({}, latents, noise, timesteps, weight, lambda output: output)
    found = loss.losses(lambda: (output,), batch)  # type: ignore[arg-type]
    diffusion = (weight * errors.prediction + errors.variance).mean()
    distance = (weight * (output - taught).square().flatten(1).mean(1)).mean()
    assert float(found.diffusion) == pytest.approx(float(diffusion))
    assert float(found.distillation) == pytest.approx(float(distance))
    assert float(found.total) == pytest.approx(float(diffusion + 0.5 * distance))


@pytest.mark.parametrize("largest", [1.0, 5.0])
def test_the_weight_over_timesteps_has_an_end(largest: float) -> None:
    weights = objective_of(SCHEDULER, largest).draw(torch.arange(1000), 1, 16).weight
    assert float(weights.max()) == largest and weights.min() >= 1
    assert (weights.diff() >= 0).all()


def test_a_model_without_learned_sigma_has_no_variance_term() -> None:
    latents, noise = torch.randn(2, 2, 4, 4), torch.randn(2, 2, 4, 4)
    loss = objective_of(SCHEDULER).loss(noise.clone(), latents, noise, torch.tensor([3, 9]))
    assert loss.total.tolist() == [0, 0]


def _samples(shape: tuple[int, ...] = (3, 2, 4, 4)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents, noise = (torch.randn(shape, generator=generator) for _ in range(2))
    return latents, noise


def test_velocity_is_what_the_scheduler_says() -> None:
    scheduler = DDPMScheduler(prediction_type="v_prediction")
    objective = objective_of(scheduler)
    latents, noise = _samples()
    timesteps = torch.tensor([0, 400, 999])
    velocity = scheduler.get_velocity(latents, noise, timesteps)
    noisy = scheduler.add_noise(latents, noise, timesteps)
    assert torch.allclose(objective.add_noise(latents, noise, timesteps), noisy, atol=1e-6)
    exact = objective.loss(velocity, latents, noise, timesteps)
    assert exact.total.max() < 1e-10
    assert objective.loss(velocity + 1, latents, noise, timesteps).total.tolist() == pytest.approx(
        [1, 1, 1], rel=1e-4
    )
    drawn = objective.draw(timesteps, regions=4, tokens=16)
    assert drawn.timesteps is timesteps and drawn.weight.tolist() == [1, 1, 1]


@pytest.mark.parametrize("shape", [(3, 2, 4, 4), (3, 2, 3, 4, 4)], ids=["picture", "video"])
def test_a_flow_goes_where_its_velocity_leads(shape: tuple[int, ...]) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    objective = objective_of(scheduler)
    latents, noise = _samples(shape)
    timesteps = scheduler.timesteps[[10, 500, 999]]
    noisy = scheduler.scale_noise(latents, timesteps, noise)
    assert torch.allclose(objective.add_noise(latents, noise, timesteps), noisy, atol=1e-6)
    assert objective.loss(noise - latents, latents, noise, timesteps).total.tolist() == [0, 0, 0]
    assert objective.loss(noise, latents, noise, timesteps).prediction.min() > 0.5


@pytest.mark.parametrize("density", ["uniform", "logit-normal"])
@pytest.mark.parametrize("regions", [1, 4, 10])
def test_noise_levels_are_distributed_as_in_diffusers_scripts(regions: int, density: Any) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    objective = objective_of(scheduler, density=density)
    given = torch.arange(1000)
    drawn = objective.draw(given, regions, tokens=16)
    levels = drawn.timesteps / 1000
    assert [region_of(float(s), regions) for s in levels] == [
        region_of(t / 1000, regions) for t in range(1000)
    ]
    # Weighted, they are the script's own: the means of any function of them agree.
    if density == "uniform":
        own = (torch.arange(1000) + 0.5) / 1000
    else:
        torch.manual_seed(0)
        own = compute_density_for_timestep_sampling("logit_normal", 200_000, 0, 1)
    shifted = 3 * own / (1 + 2 * own)
    for function in (lambda s: s, lambda s: s**2, lambda s: (1 - s) ** 3):
        found = (drawn.weight * function(levels)).mean()
        assert float(found) == pytest.approx(float(function(shifted).mean()), abs=3e-3)
    assert float(drawn.weight.mean()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", ["exponential", "linear"])
@pytest.mark.parametrize("tokens", [256, 1024, 4096])
def test_a_shift_follows_the_tokens_as_the_pipelines_does(tokens: int, kind: Any) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.6, max_shift=1.2, time_shift_type=kind
    )
    mu = calculate_shift(tokens, base_shift=0.6, max_shift=1.2)
    given = torch.arange(1000)
    drawn = objective_of(scheduler).draw(given, 1, tokens)
    expected = scheduler.time_shift(mu, 1.0, (given + 0.5) / 1000)
    assert torch.allclose(drawn.timesteps / 1000, expected, atol=1e-6)


def test_a_multistep_sampler_of_a_flow_has_its_shift() -> None:
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0
    )
    objective = objective_of(scheduler)
    assert isinstance(objective, FlowMatching) and objective.shift.at(16) == 5.0


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_model_without_error_is_denoised_by_its_scheduler_of_edm(prediction_type: Any) -> None:
    """At the minimum of the loss the scheduler finds x_0,
    which it has multiplied by sigma_data."""
    scheduler = EDMEulerScheduler(prediction_type=prediction_type)
    objective = objective_of(scheduler)
    latents, noise = torch.randn(2, 1, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for place in (0, 400, 999):
        draw = objective.draw(torch.tensor([place]), 1, 16)
        (level,) = (draw.timesteps / 1000).tolist()
        sigma = level / (1 - level)
        assert 0.002 - 1e-6 <= sigma <= 80.1
        sample = scheduler.config.sigma_data * latents + sigma * noise
        given = objective.add_noise(latents, noise, draw.timesteps)
        assert torch.allclose(given, scheduler.precondition_inputs(sample, sigma), atol=1e-5)
        output = torch.zeros_like(latents, requires_grad=True)
        (slope,) = torch.autograd.grad(
            objective.loss(output, latents, noise, draw.timesteps).total.sum(), output
        )
        best = -slope * latents.numel() / 2
        found = scheduler.precondition_outputs(sample, best, sigma)
        assert torch.allclose(found, scheduler.config.sigma_data * latents, atol=1e-3)


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(DiffCRError, match="prediction_type 'sample'"):
        objective_of(DDPMScheduler(prediction_type="sample"))
    with pytest.raises(DiffCRError, match="timestep_density is 'logit-normal', and EDMEuler"):
        objective_of(EDMEulerScheduler(), density="logit-normal")
    with pytest.raises(DiffCRError, match="timestep_density is 'logit-normal'"):
        objective_of(SCHEDULER, density="logit-normal")
    with pytest.raises(DiffCRError, match="largest_loss_weight is 5"):
        objective_of(FlowMatchEulerDiscreteScheduler(), largest_loss_weight=5.0)
