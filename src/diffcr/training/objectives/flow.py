"""Rectified flows: x_t = (1 - s) x_0 + s epsilon at noise level s, and its velocity epsilon - x_0.

Noise levels are distributed as in diffusers' training scripts (examples/dreambooth/
train_dreambooth_sd3.py, `compute_density_for_timestep_sampling`), and shifted as the pipeline
shifts those that it samples at (Esser et al. 2024, Sec. 5.3.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import Any, Literal

import torch
from torch import Tensor

from diffcr.core.regions import TIMESTEPS
from diffcr.training.objectives.objective import (
    DiffusionLoss,
    NoiseDraw,
    Objective,
    per_sample,
    squared_error,
)

Density = Literal["uniform", "logit-normal"]


@dataclass(frozen=True)
class NoiseShift:
    """s = shift u / (1 + (shift - 1) u), with u uniform or logit-normal in [0, 1].

    Attributes:
        by_tokens: Whether the shift follows the number of tokens.
        shift: At least 0, more than 1 for noisier samples; of no account with `by_tokens`.
        tokens: The two numbers of tokens with `by_tokens` at which `exponents` hold.
        exponents: The logarithm of the shift there, or with `linear` the shift; a straight line
            through both gives the others.
        linear: See `exponents`.
    """

    by_tokens: bool = False
    shift: float = 1.0
    tokens: tuple[int, int] = (256, 4096)
    exponents: tuple[float, float] = (0.5, 1.15)
    linear: bool = False

    @classmethod
    def of(cls, scheduler: Any) -> NoiseShift:
        """From a diffusers scheduler: `FlowMatchEulerDiscreteScheduler`, or a multistep one."""
        config = scheduler.config
        return cls(
            bool(config.get("use_dynamic_shifting", False)),
            float(config.get("shift") or config.get("flow_shift") or 1.0),
            (config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)),
            (config.get("base_shift", 0.5), config.get("max_shift", 1.15)),
            config.get("time_shift_type") == "linear",
        )

    def at(self, tokens: int) -> float:
        """The shift of samples with as many tokens (`calculate_shift` in pipeline_flux.py)."""
        if not self.by_tokens:
            return self.shift
        (least, most), (low, high) = self.tokens, self.exponents
        value = low + (tokens - least) * (high - low) / (most - least)
        return value if self.linear else exp(value)


@dataclass(frozen=True)
class FlowMatching(Objective):
    """The model predicts the velocity of a rectified flow; its timesteps are 1000 noise levels.

    Attributes:
        shift: Of the noise levels, as the pipeline's.
        density: Of the noise levels before they are shifted.
    """

    shift: NoiseShift = NoiseShift()
    density: Density = "uniform"

    def draw(self, timesteps: Tensor, regions: int, tokens: int) -> NoiseDraw:
        """Noise levels of the given ones' regions, in the place of their distribution there that
        the given ones have among those of the region. Since every region is drawn as often, the
        weight is the region's own share of the distribution, by the mean."""
        shift = self.shift.at(tokens)
        region = (timesteps.double() * regions / TIMESTEPS).floor()
        first, beyond = ((edge * TIMESTEPS / regions).ceil() for edge in (region, region + 1))
        place = (timesteps + 0.5 - first) / (beyond - first)
        low, high = (self._share_below(e / regions, shift) for e in (region, region + 1))
        levels = self._level(low + place * (high - low), shift)
        return NoiseDraw((TIMESTEPS * levels).float(), ((high - low) * regions).float())

    def _share_below(self, levels: Tensor, shift: float) -> Tensor:
        """Share of the samples that are less noisy than some levels."""
        unshifted = levels / (shift - (shift - 1) * levels)
        if self.density == "uniform":
            return unshifted
        below: Tensor = torch.special.ndtr(torch.logit(unshifted))
        return below

    def _level(self, shares: Tensor, shift: float) -> Tensor:
        """The inverse of `_share_below`."""
        logit_normal = self.density == "logit-normal"
        unshifted = torch.special.ndtri(shares).sigmoid() if logit_normal else shares
        return shift * unshifted / (1 + (shift - 1) * unshifted)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """As in `Objective`."""
        level = per_sample(timesteps / TIMESTEPS, latents)
        return (1 - level) * latents + level * noise

    def loss(
        self, prediction: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor
    ) -> DiffusionLoss:
        """Squared error of the velocity."""
        error = squared_error(prediction.float(), noise - latents)
        return DiffusionLoss(error, torch.zeros_like(error))
