"""Step caches that others made, as methods beside DiffCR. Each has a value at which it saves
nothing and the model returns what it returns without, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from diffcr.methods.config import MethodConfig
from diffcr.validation import NotNegative, Share, between

_Interval = Annotated[int, between(1, 1000)]


@dataclass(frozen=True)
class StepCacheConfig(MethodConfig):
    """What all of them have in common.

    Attributes:
        keeps_attention: Whether outputs of attentions are kept, row by row; else those of blocks.
    """

    trainable: ClassVar[bool] = False
    keeps_attention: ClassVar[bool] = False


@dataclass(frozen=True)
class FirstBlockCacheConfig(StepCacheConfig):
    """First-Block-Cache of ParaAttention, by diffusers' hooks.

    Attributes:
        threshold: A step is skipped behind its first block where that block's update changed by at
            most this share of its mean size since the last step that was computed; 0 skips none.
    """

    method: ClassVar[str] = "first-block-cache"

    threshold: NotNegative = 0.08


@dataclass(frozen=True)
class TaylorSeerConfig(StepCacheConfig):
    """TaylorSeer (arXiv 2503.06923), by diffusers' hooks: its variant that forecasts the output of
    the whole model.

    Attributes:
        interval: One step of so many is computed, the others are extrapolated; 1 computes all.
        dense_steps: First steps, all computed.
        order: Of the Taylor series.
    """

    method: ClassVar[str] = "taylorseer"

    interval: _Interval = 3
    dense_steps: _Interval = 3
    order: Annotated[int, between(0, 4)] = 1

    def __post_init__(self) -> None:
        _make_whole(self)
        super().__post_init__()


@dataclass(frozen=True)
class MagCacheConfig(StepCacheConfig):
    """MagCache (arXiv 2506.09045), by diffusers' hooks.

    Attributes:
        threshold: Largest error that skipped steps in a row may add up to, as `mag_ratios` predict
            it.
        mag_ratios: By how much the size of all blocks' update changes at every step of a run, from
            the first, as `diffcr.measure_mag_ratios` finds them; as many as there are steps.
        max_skip_steps: Of them in a row.
        dense_share: Share of the steps, the first ones, that are all computed; 1 computes all.
    """

    method: ClassVar[str] = "mag-cache"

    threshold: NotNegative = 0.06
    mag_ratios: tuple[float, ...] = ()
    max_skip_steps: _Interval = 3
    dense_share: Share = 0.2

    def __post_init__(self) -> None:
        if isinstance(self.mag_ratios, list):
            object.__setattr__(self, "mag_ratios", tuple(self.mag_ratios))
        super().__post_init__()


@dataclass(frozen=True)
class PyramidAttentionBroadcastConfig(StepCacheConfig):
    """Pyramid Attention Broadcast (arXiv 2408.12588), by diffusers' hooks.

    Attributes:
        interval: Self-attention is computed at one step of so many, 1 for all.
        cross_interval: Cross-attention likewise.
        least_level: Noise level below which every step computes them.
        most_level: Noise level above which every step computes them.
    """

    method: ClassVar[str] = "pab"
    keeps_attention: ClassVar[bool] = True

    interval: _Interval = 2
    cross_interval: _Interval = 2
    least_level: Share = 0.1
    most_level: Share = 0.8

    def __post_init__(self) -> None:
        _make_whole(self)
        super().__post_init__()


@dataclass(frozen=True)
class TGateConfig(StepCacheConfig):
    """T-GATE (arXiv 2404.02747), the part that needs no change of the pipeline: below a noise level
    the text is not read again, each half of guidance keeping its own. The paper averages the halves
    and ends guidance there, and reuses self-attention above the gate.

    Attributes:
        gate: Noise level, in [0, 1], below which cross-attention returns what it returned last; 0
            for never.
    """

    method: ClassVar[str] = "t-gate"
    keeps_attention: ClassVar[bool] = True

    gate: Share = 0.5


def _make_whole(config: TaylorSeerConfig | PyramidAttentionBroadcastConfig) -> None:
    """The command line reads every setting as a float."""
    interval: float = config.interval
    if isinstance(interval, float) and interval.is_integer():
        object.__setattr__(config, "interval", int(interval))
