"""Token merging (ToMe)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from diffcr.methods.config import MethodConfig
from diffcr.validation import require_between, require_choice, require_integer

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

    Raises:
        DiffCRError: A value is outside its range.
    """

    method: ClassVar[str] = "tome"
    trainable: ClassVar[bool] = False

    compression_ratio: float = 0.2
    placement: Placement = "attention"
    destinations: Destinations = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        require_between("compression_ratio", self.compression_ratio, 0, 0.75)
        require_choice("placement", self.placement, get_args(Placement))
        require_choice("destinations", self.destinations, get_args(Destinations))
        require_integer("seed", self.seed, 0)
