"""What one call of the transformer needs to know: regions of its samples, bins of its layers.

Built once per call, before the first block; nothing about a call outlives it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffcr.methods.diffcr.ratios import BINS, bracket

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class LayerPlan:
    """What one layer does for the samples of one region.

    Attributes:
        lower: Bin that is run, 0 to 10.
        upper: Second bin that is run and mixed in, None for one alone.
        weight: Scalar tensor. With `upper`, its share of the mixture. Without, in training, a
            value that is 0 and keeps the ratio in the graph, which DDP requires of every parameter.
    """

    lower: int
    upper: int | None = None
    weight: Tensor | None = None


@dataclass(frozen=True)
class RegionPlan:
    """The layers' plans for the samples of one timestep region.

    Attributes:
        samples: Their places in the batch, [B'] int64; None for the whole batch.
        layers: One plan per layer.
    """

    samples: Tensor | None
    layers: tuple[LayerPlan, ...]


@dataclass(frozen=True)
class StepContext:
    """One call of the transformer.

    Attributes:
        regions: One plan per region that occurs in the batch.
        scattered: `core.select.scattered_positions` of the call's tokens, for all its layers.
        rankings: Token rankings [B, N] by layer that take the place of the routers', for
            comparisons with selections held.
    """

    regions: tuple[RegionPlan, ...]
    scattered: Tensor
    rankings: Mapping[int, Tensor] = field(default_factory=dict)


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


def inference_plans(bins: Sequence[Sequence[int]], region: int) -> tuple[LayerPlan, ...]:
    """The nearest bin of every layer, none mixed."""
    return tuple(LayerPlan(layer[region]) for layer in bins)


def settled_plans(
    ratios: Tensor, bins: Sequence[Sequence[int]], region: int
) -> tuple[LayerPlan, ...]:
    """The nearest bin of every layer, with the ratios [L, R] in the graph and no gradient."""
    return tuple(
        LayerPlan(row[region], None, 0 * ratios[layer, region]) for layer, row in enumerate(bins)
    )


def training_plans(
    ratios: Tensor,
    table: Sequence[Sequence[float]],
    region: int,
    max_bin: int,
    mixing_draws: Sequence[Sequence[float]] | None,
    mixing_probability: float,
    gradient_scale: float = 1.0,
) -> tuple[LayerPlan, ...]:
    """The two bins around every layer's ratio, or a draw of them.

    Args:
        ratios: [L, R], bounded, with gradient.
        table: The values of `ratios`, read once.
        region: Column of the table.
        max_bin: Largest bin.
        mixing_draws: [L][2] uniform in [0, 1): whether both bins are run, and if not, which one.
            None runs both everywhere (the paper's branches).
        mixing_probability: p of sampled branches. The mixture's gradient is scaled by 1 / p, so
            that its expectation is the gradient of the full mixture.
        gradient_scale: What the gradient of the ratios is multiplied with.
    """
    plans = []
    for layer, row in enumerate(table):
        around = bracket(row[region], max_bin)
        weight = ratios[layer, region] * BINS - around.lower
        mixes, picks = (0.0, 0.0) if mixing_draws is None else mixing_draws[layer]
        if mixing_draws is None or mixes < mixing_probability:
            probability = 1.0 if mixing_draws is None else mixing_probability
            held = weight.detach()
            scaled = held + (weight - held) * (gradient_scale / probability)
            plans.append(LayerPlan(around.lower, around.upper, scaled))
        else:
            chosen = around.upper if picks < around.position else around.lower
            plans.append(LayerPlan(chosen, None, 0 * weight))
    return tuple(plans)
