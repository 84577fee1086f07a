"""Schedules of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from diffcr.methods.diffcr.config import DiffCRConfig
from diffcr.training.loop import Trainer
from diffcr.training.objectives import NoisePrediction, objective_of
from diffcr.training.optimization import WeightAverage, learning_rate_factor
from diffcr.training.ratio_steering import next_ratio_loss_weight, ratio_gradient_scales
from diffcr.training.recipe import OptimizerRecipe, RatioLossRecipe, TrainingRecipe
from diffcr.training.run import attention_kernel
from tests.training.worker import run, state, tiny_pipe, tiny_recipe, tiny_task

RATIO_LOSS = RatioLossRecipe(weight=3.0, growth=2.0, raise_every=10, ramp=0.5, largest=20.0)


@pytest.mark.parametrize(
    ("weight", "mean", "step", "expected"),
    [
        (3.0, 0.10, 50, 6.0),  # half of the ramp: 0.15 is expected
        (3.0, 0.10, 51, 3.0),  # not a step at which lambda is looked at
        (3.0, 0.147, 50, 3.0),  # within the tolerance
        (3.0, 0.40, 50, 3.0),  # ahead: lambda never falls
        (3.0, 0.29, 180, 6.0),  # behind the target after the ramp
        (15.0, 0.10, 50, 20.0),  # the largest
    ],
)
def test_lambda_rises_while_the_mean_lags(
    weight: float, mean: float, step: int, expected: float
) -> None:
    assert next_ratio_loss_weight(RATIO_LOSS, weight, mean, 0.3, step, 200) == expected


def test_rates_warm_up_and_fall() -> None:
    recipe = OptimizerRecipe(warmup_steps=10, schedule="cosine", final_fraction=0.1)
    factors = [learning_rate_factor(recipe, step, 110) for step in range(110)]
    assert factors[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(factors) == 1
    assert factors[60] == pytest.approx(0.55, abs=0.02)
    assert factors[-1] == pytest.approx(0.1, abs=0.01)


def test_the_average_begins_with_what_is_new_and_then_keeps_what_was() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    average, expected = WeightAverage({"weight": weight}, 0.9), 0.0
    for update in range(1, 200):
        with torch.no_grad():
            weight.fill_(float(update))
        average.update()
        decay = min(0.9, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * update
        assert float(average.values["weight"]) == pytest.approx(expected, rel=1e-5)
    # Without a warm-up the first values would still be seen after so few updates.
    assert (1 + 1) / (10 + 1) < 0.9 < (1 + 100) / (10 + 100)


def test_gradients_are_clipped_as_they_are_before_ratios_are_steered(tmp_path: Path) -> None:
    recipe = tiny_recipe(ratio_loss=RatioLossRecipe(shared=1.0))
    task = tiny_task()
    trainer = Trainer(recipe, task, objective_of(tiny_pipe().scheduler), tmp_path, True)
    for parameter in trainer.state.parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    ratios, (name, other) = task.trained.diffcr.ratios, next(iter(trainer.state.parameters.items()))
    assert not name.startswith("diffcr.")
    with torch.no_grad():
        ratios.fill_(0.5)
    # Opposite in the two regions: their mean, which a shared ratio has, is 0.
    ratios.grad = torch.tensor([[3.0, -3.0], [0.0, 0.0]])
    other.grad.view(-1)[0] = 4.0  # type: ignore[union-attr]
    norm = trainer._shape_gradients(0)
    assert float(norm) == pytest.approx((3**2 + 3**2 + 4**2) ** 0.5)
    assert float(other.grad.view(-1)[0]) == pytest.approx(4 / float(norm), rel=1e-4)  # type: ignore[union-attr]
    assert ratios.grad.abs().max() < 1e-6


def test_the_average_is_of_ratios_inside_of_their_range(tmp_path: Path) -> None:
    rates = OptimizerRecipe(ratio_learning_rate=5.0)
    run(tmp_path, tiny_recipe(steps=4, checkpoint_every=1, optimizer=rates))
    for step in (3, 4):
        averaged = state(tmp_path, step)["average/diffcr.ratios"]
        assert averaged.min() >= 0 and averaged.max() <= 0.9 and averaged.max() > 0.05


def test_bfloat16_on_a_cpu_takes_the_plain_kernel_and_it_agrees() -> None:
    fused = {}
    query, key, value = (torch.randn(1, 2, 8, 4).bfloat16() for _ in range(3))
    outputs = []
    for precision in ("no", "bf16"):
        with attention_kernel(torch.device("cpu"), precision):
            fused[precision] = torch.backends.cuda.flash_sdp_enabled()
            outputs.append(
                torch.nn.functional.scaled_dot_product_attention(query, key, value).float()
            )
    assert fused == {"no": True, "bf16": False}
    assert (outputs[0] - outputs[1]).abs().max() < 0.05


def test_noise_emphasis_follows_the_regions_loss_weights() -> None:
    objective = objective_of(DPMSolverMultistepScheduler(), 100.0)
    assert isinstance(objective, NoisePrediction)
    plain, squared = (
        ratio_gradient_scales(
            objective,
            TrainingRecipe(
                "scales",
                method=DiffCRConfig(timestep_regions=4),
                largest_loss_weight=100.0,
                ratio_loss=RatioLossRecipe(noise_emphasis=emphasis),
            ),
        )
        for emphasis in (0.0, 1.0)
    )
    assert plain == (1.0, 1.0, 1.0, 1.0)
    assert sum(squared) == pytest.approx(4)
    assert list(squared) == sorted(squared)
    weights = objective.schedule.loss_weight(torch.arange(1000), 100.0)
    first, last = weights[:250].mean(), weights[750:].mean()
    assert squared[3] / squared[0] == pytest.approx(float(last / first), rel=1e-5)
