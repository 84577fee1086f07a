"""Sampling runs of a tiny transformer under token reuse."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from diffcr.binding.attachment import attach
from diffcr.methods.reuse.config import ReuseConfig
from tests.hosts import Inputs, denoise, pixart

TOKENS = ReuseConfig(0.5, "tokens", dense_above=0.85)
STEPS = ReuseConfig(0.5, "steps", dense_above=0.85)
LEVELS = (990, 700, 500, 300, 100)
both_forms = pytest.mark.parametrize("config", [TOKENS, STEPS], ids=["tokens", "steps"])


def reusing(config: ReuseConfig = TOKENS) -> nn.Module:
    """A transformer with token reuse attached."""
    transformer = pixart()
    attach(transformer, config)
    return transformer


def moved(given: Inputs, step: int) -> Inputs:
    """The latents of a later step: every token changes, some more than others."""
    generator = torch.Generator().manual_seed(100 + step)
    shape = given.latents.shape[1:]
    change = torch.randn(shape, generator=generator) * torch.rand(shape, generator=generator)
    return replace(given, latents=given.latents + (0.3 * step * change).to(given.latents.dtype))


@torch.no_grad()
def sample(transformer: nn.Module, given: Inputs, levels: tuple[int, ...] = LEVELS) -> Tensor:
    """Outputs of a sampling run, [steps, B, 8, h, w]."""
    timesteps = [torch.full_like(given.timesteps, level) for level in levels]
    return torch.stack(
        [denoise(transformer, moved(given.at(t), step)) for step, t in enumerate(timesteps)]
    )
