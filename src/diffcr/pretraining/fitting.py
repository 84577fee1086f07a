"""How the embedded default's small networks learn: the loop of text encoder, autoencoder and judge,
and the loss of those that tell a scene's attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from tqdm.auto import trange

from diffcr.scenes import scene_targets
from diffcr.scenes.attributes import BACKGROUND_CLASSES, OBJECT_CLASSES


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How a network is trained.

    Attributes:
        steps: Optimiser steps.
        batch_size: Items per step.
        learning_rate: Peak of AdamW's one-cycle schedule.
        seed: Initial weights and draws are functions of it.
    """

    steps: int
    batch_size: int
    learning_rate: float = 2e-3
    seed: int = 0


def fit(
    name: str,
    parameters: Iterable[nn.Parameter],
    settings: FitSettings,
    loss_of: Callable[[torch.Generator], Tensor],
    weight_decay: float,
    warm_up: float,
) -> list[float]:
    """Train parameters by AdamW, with gradients clipped to a norm of 1.

    Args:
        name: What the progress bar calls the network.
        parameters: What is trained.
        settings: Steps, learning rate and seed.
        loss_of: The loss of a step, a scalar; draws its items with the generator.
        weight_decay: Decoupled decay of all parameters.
        warm_up: Share of the steps until the learning rate is at its peak.

    Returns:
        The course of the loss.
    """
    trained, losses = list(parameters), []
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, settings.steps, pct_start=warm_up
    )
    generator = torch.Generator().manual_seed(settings.seed)
    for _ in (bar := trange(settings.steps, desc=name, mininterval=1)):
        loss = loss_of(generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        bar.set_postfix(loss=f"{losses[-1]:.3g}")
    return course(losses)


def course(losses: list[float]) -> list[float]:
    """Losses for a record, averaged over each fiftieth of them."""
    size = max(1, len(losses) // 50)
    parts = (losses[i : i + size] for i in range(0, len(losses), size))
    return [round(sum(part) / len(part), 5) for part in parts]


def stack_targets(scenes: list[Any]) -> dict[str, Tensor]:
    """Targets of scenes as tensors by attribute, [B, places] or [B]."""
    targets = [scene_targets(scene.attributes) for scene in scenes]
    names = ["presence", *OBJECT_CLASSES, *BACKGROUND_CLASSES]
    return {name: torch.tensor([getattr(t, name) for t in targets]) for name in names}


def attribute_loss(logits: dict[str, Tensor], targets: dict[str, Tensor]) -> Tensor:
    """Sum of the attributes' cross entropies; absent objects count for presence alone."""
    presence = targets["presence"].float()
    loss = binary_cross_entropy_with_logits(logits["presence"], presence)
    for name, target in targets.items():
        if name != "presence":
            flat = logits[name].flatten(0, -2)
            loss = loss + cross_entropy(flat, target.flatten(), ignore_index=-1)
    return loss
