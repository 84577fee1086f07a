"""How a run steers its ratios: lambda, noisy regions, one for all regions, and when they settle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from diffcr.core.regions import region_timesteps
from diffcr.core.sharded import own_part, whole
from diffcr.errors import DiffCRError
from diffcr.methods.diffcr.compressor import Compressor
from diffcr.methods.diffcr.config import DiffCRConfig
from diffcr.training.draws import MicroBatch
from diffcr.training.objectives.discrete import NoisePrediction
from diffcr.training.objectives.objective import Objective
from diffcr.training.optimization import WeightAverage
from diffcr.training.recipe import RatioLossRecipe, TrainingRecipe

_RATIOS = "diffcr.ratios"


def next_ratio_loss_weight(
    recipe: RatioLossRecipe, weight: float, mean: float, target: float, step: int, steps: int
) -> float:
    """lambda after `step` of `steps` steps, where it was `weight` and the ratios have a `mean`, by
    the rule of `RatioLossRecipe`."""
    if step % recipe.raise_every:
        return weight
    expected = target * min(1.0, step / (recipe.ramp * steps))
    lags = expected - mean > recipe.tolerance
    return min(weight * recipe.growth, recipe.largest) if lags else weight


def ratio_gradient_scales(objective: Objective, recipe: TrainingRecipe) -> tuple[float, ...]:
    """What the ratios' gradient is multiplied with in each timestep region; 1 on average.

    Raises:
        DiffCRError: The objective is not to predict noise.
    """
    if not isinstance(objective, NoisePrediction):
        raise DiffCRError(
            f"ratio_loss.noise_emphasis is {recipe.ratio_loss.noise_emphasis}, which is for models "
            "that predict noise: give 0"
        )
    regions = recipe.timestep_regions
    emphasised = []
    for region in range(regions):
        timesteps = torch.tensor(list(region_timesteps(region, regions)))
        weight = objective.draw(timesteps, regions, tokens=0).weight.mean()
        emphasised.append(float(weight) ** recipe.ratio_loss.noise_emphasis)
    return tuple(value * regions / sum(emphasised) for value in emphasised)


class RatioSteering:
    """What a run does about its routers' ratios, step by step.

    Args:
        compressor: Holds the ratios that are steered.
        recipe: Its `ratio_loss` and its method say what is aimed at.
        objective: Weighs the timesteps, for `noise_emphasis`.
        average: Of the trained weights, whose ratios by-products and the result have.
        optimizers: Those that move the ratios among them.

    Attributes:
        averaged_mean: Mean of the averaged ratios after the last step, in [0, 1].
    """

    def __init__(
        self,
        compressor: Compressor,
        recipe: TrainingRecipe,
        objective: Objective,
        average: WeightAverage,
        optimizers: Sequence[torch.optim.Optimizer],
    ) -> None:
        self.compressor, self.recipe = compressor, recipe
        self.average, self.optimizers = average, optimizers
        if recipe.ratio_loss.noise_emphasis > 0:
            compressor.gradient_scales = ratio_gradient_scales(objective, recipe)
        self.averaged_mean = float(self._averaged_mean())

    def begin_step(self, step: int) -> None:
        """Settle the ratios where the recipe says so."""
        share = self.recipe.ratio_loss.settle
        if share < 1 and step >= share * self.recipe.steps and not self.compressor.settled:
            self._settle()

    def _settle(self) -> None:
        self.compressor.settle_ratios()
        ratios = self.compressor.ratios
        # The average is of ratios from before, too, which would be rounded to other bins.
        if (averaged := self.average.values.get(_RATIOS)) is not None:
            averaged.copy_(ratios.detach())
        # Momentum would move them further.
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                if any(parameter is ratios for parameter in group["params"]):
                    group["peak_lr"] = 0.0

    @contextmanager
    def micro_batch(self, draw: MicroBatch) -> Iterator[None]:
        """Within the context a forward draws the micro-batch's branches, in its region, which no
        timestep is read for."""
        self.compressor.seed_branches(draw.branch_seed)
        with self.compressor.in_region(draw.region):
            yield

    def loss(self, weight: float) -> Tensor | float:
        """The ratio loss with lambda `weight`; none once the ratios are settled."""
        return 0.0 if self.compressor.settled else self.compressor.ratio_loss(weight)

    def shape_gradients(self, step: int) -> None:
        """After backward, before the optimizers' step."""
        found = self.compressor.ratios.grad
        if found is not None and step < self.recipe.ratio_loss.shared * self.recipe.steps:
            gradient = own_part(found)
            # Equal ratios stay equal.
            gradient.copy_(gradient.mean(1, keepdim=True).expand_as(gradient))
        self.compressor.block_outward_gradients()

    def end_step(self) -> None:
        """After the optimizers' step."""
        self.compressor.project_ratios()

    def unread(self) -> Tensor:
        """What `read` is to be told of, on the device: the ratios, and the mean of the averaged
        ones, [L * R + 1]."""
        ratios = whole(self.compressor.ratios.detach()).flatten()
        return torch.cat([ratios, self._averaged_mean().to(ratios).view(1)])

    def read(self, values: list[float]) -> None:
        """Take the values of `unread`, so that nothing else of a step waits for them."""
        *ratios, self.averaged_mean = values
        self.compressor.read_ratios(ratios)

    @property
    def mean(self) -> float:
        """Mean of the learned ratios, in [0, 1]."""
        return float(self.compressor.known_ratios(may_wait=False).mean())

    def next_weight(self, weight: float, mean: float, step: int) -> float:
        """lambda after `step` steps, where it was `weight` and the ratios have a `mean`."""
        recipe, method = self.recipe, self.recipe.method
        if not isinstance(method, DiffCRConfig):
            return weight
        target = method.target_compression_ratio
        return next_ratio_loss_weight(recipe.ratio_loss, weight, mean, target, step, recipe.steps)

    def passed_multiples(self) -> int:
        """Multiples of `by_product_step` in the mean of the averaged ratios, which a save has; 0
        where none are learned."""
        if not isinstance(self.recipe.method, DiffCRConfig):
            return 0
        return int(self.averaged_mean / self.recipe.by_product_step + 1e-6)

    def _averaged_mean(self) -> Tensor:
        averaged = self.average.values.get(_RATIOS, self.compressor.ratios.detach())
        return whole(averaged).clamp(0, self.compressor.config.max_compression_ratio).mean()

    def table(self) -> list[list[float]]:
        """The learned ratios, [layers][regions], rounded for people."""
        table = self.compressor.known_ratios(may_wait=False).tolist()
        return [[round(ratio, 4) for ratio in row] for row in table]
