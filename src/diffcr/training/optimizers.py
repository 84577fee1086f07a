"""Optimizers of a training run and the course of their learning rates."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

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


def _block_matrices(model: nn.Module) -> list[nn.Parameter]:
    matrices = []
    for block in host_blocks_within(model):
        for module in block.modules():
            if isinstance(module, nn.Linear) and module.weight.requires_grad:
                assert isinstance(module.weight, nn.Parameter)
                matrices.append(module.weight)
    return matrices


def learning_rate_factor(recipe: OptimizerRecipe, step: int, steps: int) -> float:
    """What learning rates are multiplied with at a step, from 0."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    if recipe.schedule == "constant":
        return 1.0
    done = (step - recipe.warmup_steps) / max(1, steps - recipe.warmup_steps)
    cosine = 0.5 * (1 + float(torch.cos(torch.tensor(done * torch.pi, dtype=torch.float64))))
    return recipe.final_fraction + (1 - recipe.final_fraction) * cosine
