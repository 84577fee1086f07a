"""What one call of the transformer does: regions of its samples, tokens that its layers keep.

Built once per call, before the first block; nothing about a call outlives it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffcr.methods.diffcr.config import DiffCRConfig
from diffcr.methods.diffcr.kept_updates import UpdateRun
from diffcr.methods.diffcr.ratios import BINS, bracket, kept_tokens
from diffcr.methods.diffcr.scores import ScoredBy, TokenScores


@dataclass(frozen=True)
class LayerPlan:
    """What one layer does for the samples of one region.

    Attributes:
        kept_tokens: Tokens that are computed, 0 to N.
        mixed_kept_tokens: Of a second pass that is mixed in, None for one alone.
        weight: Scalar tensor. With a second pass, its share of the mixture. Without, in training, a
            value that is 0 and keeps the ratio in the graph, which DDP requires of every parameter.
    """

    kept_tokens: int
    mixed_kept_tokens: int | None = None
    weight: Tensor | None = None

    def drops(self, tokens: int) -> bool:
        """Whether a pass computes some of N tokens and not all."""
        passes = (self.kept_tokens, self.mixed_kept_tokens)
        return any(kept is not None and 0 < kept < tokens for kept in passes)

    def bypasses(self, tokens: int) -> bool:
        """Whether a pass leaves out some of N tokens, or all."""
        passes = (self.kept_tokens, self.mixed_kept_tokens)
        return any(kept is not None and kept < tokens for kept in passes)


@dataclass(frozen=True)
class RegionPlan:
    """The layers' plans for the samples of one timestep region.

    Attributes:
        samples: Their places in the batch, [B'] int64; None for the whole batch.
        layers: One plan per layer.
        region: The region.
    """

    samples: Tensor | None
    layers: tuple[LayerPlan, ...]
    region: int


@dataclass(frozen=True)
class StepContext:
    """One call of the transformer.

    Attributes:
        regions: One plan per region that occurs in the batch.
        scattered: `core.select.scattered_positions` of the call's tokens, for all its layers.
        rankings: Token rankings [B, N] by layer that take the place of the routers', for
            comparisons with selections held.
        run: The sampling run whose updates are reused; None where none are.
        scores: What routers that several layers share have said so far.
    """

    regions: tuple[RegionPlan, ...]
    scattered: Tensor
    rankings: Mapping[int, Tensor] = field(default_factory=dict)
    run: UpdateRun | None = None
    scores: dict[ScoredBy, TokenScores] = field(default_factory=dict)


@dataclass(frozen=True)
class RegionSamples:
    """A region and the samples of the batch that lie in it (None: all)."""

    region: int
    samples: Tensor | None


def group_by_region(regions: Sequence[int], device: torch.device) -> list[RegionSamples]:
    """Samples of a batch by region, in ascending order of regions."""
    distinct = sorted(set(regions))
    if len(distinct) == 1:
        return [RegionSamples(distinct[0], None)]
    return [
        RegionSamples(
            region,
            torch.tensor([i for i, r in enumerate(regions) if r == region], device=device),
        )
        for region in distinct
    ]


def inference_plans(
    bins: Sequence[Sequence[int]], region: int, tokens: int
) -> tuple[LayerPlan, ...]:
    """The nearest bin of every layer, none mixed; `tokens` is N."""
    return tuple(LayerPlan(kept_tokens(tokens, layer[region])) for layer in bins)


def settled_plans(
    ratios: Tensor, bins: Sequence[Sequence[int]], region: int, tokens: int
) -> tuple[LayerPlan, ...]:
    """The nearest bin of every layer, with the ratios [L, R] in the graph and no gradient."""
    return tuple(
        LayerPlan(kept_tokens(tokens, row[region]), None, 0 * ratios[layer, region])
        for layer, row in enumerate(bins)
    )


def training_plans(
    ratios: Tensor,
    table: Sequence[Sequence[float]],
    config: DiffCRConfig,
    region: int,
    tokens: int,
    mixing_draws: Sequence[Sequence[float]] | None,
    gradient_scale: float = 1.0,
) -> tuple[LayerPlan, ...]:
    """The two bins around every layer's ratio, or a draw of them.

    Args:
        ratios: [L, R], bounded, with gradient.
        table: The values of `ratios`, read once.
        config: With the largest bin, and p of sampled branches: the mixture's gradient is scaled by
            1 / p, so that its expectation is the gradient of the full mixture.
        region: Column of the table.
        tokens: N.
        mixing_draws: [L][2] uniform in [0, 1): whether both bins are run, and if not, which one.
            None runs both everywhere (the paper's branches).
        gradient_scale: What the gradient of the ratios is multiplied with.
    """
    plans = []
    for layer, row in enumerate(table):
        around = bracket(row[region], config.max_bin)
        weight = ratios[layer, region] * BINS - around.bin
        mixes, picks = (0.0, 0.0) if mixing_draws is None else mixing_draws[layer]
        lower, upper = (kept_tokens(tokens, b) for b in (around.bin, around.bin + 1))
        if mixing_draws is None or mixes < config.mixing_probability:
            probability = 1.0 if mixing_draws is None else config.mixing_probability
            held = weight.detach()
            scaled = held + (weight - held) * (gradient_scale / probability)
            plans.append(LayerPlan(lower, upper, scaled))
        else:
            plans.append(LayerPlan(upper if picks < around.position else lower, None, 0 * weight))
    return tuple(plans)
