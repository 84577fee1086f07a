"""Token merging (ToMe)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from diffcr.methods.config import MethodConfig
from diffcr.validation import AT_LEAST_0, between

Placement = Literal["attention", "mlp", "attention-mlp", "block"]
Destinations = Literal["random", "top-left"]


@dataclass(frozen=True)
class ToMeConfig(MethodConfig):
    """Token merging (Bolya & Hoffman 2023, arXiv 2303.17604): bipartite soft matching.

    In every layer, one token of each cell of 2 x 2 is a destination; of the others, those that are
    most similar to a destination are merged into it, and get its result.

    Attributes:
        compression_ratio: Share of tokens that are merged away, in [0, 0.75].
        placement: What computes merged tokens: the self-attention, the feed-forward ("mlp"; what
            the figures of DiffCR's Table 1 imply), both, or the whole block. Around the whole
            block a merged token gets the destination's update and keeps what it was before.
        destinations: Which token of a cell: drawn at random, per layer, once for all calls and
            samples; or always the first.
        seed: Of the draw.
    """

    method: ClassVar[str] = "tome"
    trainable: ClassVar[bool] = False

    compression_ratio: Annotated[float, between(0, 0.75)] = 0.2
    placement: Placement = "attention"
    destinations: Destinations = "random"
    seed: Annotated[int, AT_LEAST_0] = 0
