"""How a run steers its ratios: lambda, noisy regions, one for all regions, and when they settle."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from diffcr.compressor import Compressor
from diffcr.core.ratios import bounded, region_timesteps
from diffcr.training.average import WeightAverage
from diffcr.training.objective import NoiseSchedule
from diffcr.training.recipe import TrainingRecipe
from diffcr.training.recipe_sections import RatioLossRecipe

_RATIOS = "diffcr.ratios"


def next_ratio_loss_weight(
    recipe: RatioLossRecipe, weight: float, mean: float, target: float, step: int, steps: int
) -> float:
    """lambda after `step` steps, by the rule of `RatioLossRecipe`."""
    if step % recipe.raise_every:
        return weight
    expected = target * min(1.0, step / (recipe.ramp * steps))
    lags = expected - mean > recipe.tolerance
    return min(weight * recipe.growth, recipe.largest) if lags else weight


def ratio_gradient_scales(schedule: NoiseSchedule, recipe: TrainingRecipe) -> tuple[float, ...]:
    """What the ratios' gradient is multiplied with in each timestep region; 1 on average."""
    regions = recipe.timestep_regions
    emphasised = []
    for region in range(regions):
        timesteps = torch.tensor(list(region_timesteps(region, regions)))
        weight = schedule.loss_weight(timesteps, recipe.largest_loss_weight).mean()
        emphasised.append(float(weight) ** recipe.ratio_loss.noise_emphasis)
    return tuple(value * regions / sum(emphasised) for value in emphasised)


def share_gradient(ratios: torch.Tensor) -> None:
    """Give every timestep region of a layer the mean gradient of all: equal ratios stay equal.

    Args:
        ratios: `(layers, timestep regions)`, float32, with a gradient or without.
    """
    if ratios.grad is not None:
        ratios.grad.copy_(ratios.grad.mean(1, keepdim=True).expand_as(ratios.grad))


def averaged_mean_ratio(compressor: Compressor, average: WeightAverage) -> float:
    """Mean of the averaged ratios, which are what a run saves; of the ratios where none are."""
    averaged = average.values.get(_RATIOS, compressor.ratios.detach())
    return float(bounded(averaged, compressor.config.max_compression_ratio).mean())


def settle(
    compressor: Compressor, average: WeightAverage, optimizers: Iterable[torch.optim.Optimizer]
) -> None:
    """Round the ratios to the bins of inference, for the rest of the run.

    Args:
        compressor: Of the model in training.
        average: Of its weights. One of ratios from before would be rounded to other bins.
        optimizers: Their group of the ratios stands still from here on: momentum would move it.
    """
    compressor.settle_ratios()
    ratios = compressor.ratios
    if (averaged := average.values.get(_RATIOS)) is not None:
        averaged.copy_(ratios.detach())
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if any(parameter is ratios for parameter in group["params"]):
                group["peak_lr"] = 0.0
