"""Pruned models for tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from diffcr.binding.attachment import attach
from diffcr.methods.pruning.config import StructuredPruningConfig
from tests.hosts import denoise, inputs, pixart

CONFIG = StructuredPruningConfig(0.3)


def pruned_pixart(config: StructuredPruningConfig = CONFIG) -> Any:
    transformer = pixart()
    attach(transformer, config)
    return transformer


def host_state(transformer: nn.Module) -> dict[str, torch.Tensor]:
    state = transformer.state_dict()
    return {name: value for name, value in state.items() if not name.startswith("diffcr.")}


def descend(transformer: nn.Module) -> None:
    """One step of plain gradient descent on everything that can be trained."""
    denoise(transformer, inputs()).square().mean().backward()
    with torch.no_grad():
        for parameter in transformer.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.1 * parameter.grad)
                parameter.grad = None
