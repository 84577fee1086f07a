"""How trained weights move: optimizers, the course of their learning rates, the average."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from diffcr.binding.model import parameter_groups
from diffcr.errors import DiffCRError
from diffcr.hosts import host_blocks_within
from diffcr.training.recipe import OptimizerRecipe, TrainingRecipe


def make_optimizers(transformer: nn.Module, recipe: TrainingRecipe) -> list[torch.optim.Optimizer]:
    """AdamW, or Muon for the matrices of the blocks beside AdamW for everything else.

    Routers and ratios have no weight decay and are AdamW's in any case. Each group carries its
    learning rate as `peak_lr`, too.

    Raises:
        DiffCRError: This torch has no Muon.
    """
    rates = recipe.optimizer
    if not recipe.is_routed:
        weights = [p for p in transformer.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": weights, "lr": rates.learning_rate, "weight_decay": rates.weight_decay}
        ]
    else:
        groups = parameter_groups(
            transformer,
            lr=rates.learning_rate,
            router_lr=rates.router_learning_rate,
            ratio_lr=rates.ratio_learning_rate,
            weight_decay=rates.weight_decay,
        )
    optimizers: list[torch.optim.Optimizer] = []
    if rates.algorithm == "muon":
        if not hasattr(torch.optim, "Muon"):
            raise DiffCRError(
                f"optimizer.algorithm 'muon' needs torch 2.9 or later, this is {torch.__version__}"
            )
        matrices = {id(weight): weight for weight in _block_matrices(transformer)}
        for group in groups:
            group["params"] = [p for p in group["params"] if id(p) not in matrices]
        # With the size of AdamW's updates one learning rate suits both.
        optimizers.append(
            torch.optim.Muon(
                list(matrices.values()),
                lr=rates.learning_rate,
                weight_decay=rates.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    optimizers.append(torch.optim.AdamW(groups))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def _block_matrices(model: nn.Module) -> list[Tensor]:
    return [
        module.weight
        for block in host_blocks_within(model)
        for module in block.modules()
        if isinstance(module, nn.Linear) and module.weight.requires_grad
    ]


def set_learning_rates(
    optimizers: Sequence[torch.optim.Optimizer], recipe: OptimizerRecipe, step: int, steps: int
) -> None:
    """Bring the rates of all groups to where they are at a step, from 0, of `steps` steps."""
    factor = learning_rate_factor(recipe, step, steps)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor


def learning_rate_factor(recipe: OptimizerRecipe, step: int, steps: int) -> float:
    """What the highest rates are multiplied with at a step, from 0, of `steps` steps; in [0, 1]."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    if recipe.schedule == "constant":
        return 1.0
    done = (step - recipe.warmup_steps) / max(1, steps - recipe.warmup_steps)
    cosine = 0.5 * (1 + float(torch.cos(torch.tensor(done * torch.pi, dtype=torch.float64))))
    return recipe.final_fraction + (1 - recipe.final_fraction) * cosine


class WeightAverage:
    """Exponential moving average of parameters; its decay is min(decay, (1 + n) / (10 + n)).

    Attributes:
        parameters: What is averaged, by name.
        decay: Largest decay, in [0, 1); 0 averages nothing.
        values: The averages by the parameters' names; empty with a decay of 0.
        updates: Updates done, n.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        self.parameters = parameters
        self.decay = decay
        self.updates = 0
        self.values: dict[str, Tensor] = {}
        if decay > 0:
            self.values = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the parameters."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in self.values.items():
            value.lerp_(self.parameters[name], 1 - decay)

    def take_over(self) -> None:
        """Leave the averages in the parameters."""
        self._fill(self.values)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the context the parameters hold their averages."""
        present = {name: self.parameters[name].detach().clone() for name in self.values}
        self._fill(self.values)
        try:
            yield
        finally:
            self._fill(present)

    @torch.no_grad()
    def _fill(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.parameters[name].copy_(value)
