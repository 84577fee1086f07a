"""What routers say of a call's tokens.

Shapes: B samples, N tokens of a sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from diffcr.core.select import rank_tokens


class ScoredBy(NamedTuple):
    """Whose scores they are, and of which samples.

    Attributes:
        group: Of the layers that share a router, the block group,
        row: and the first one's place in it.
        region: Timestep region of the samples.
    """

    group: str
    row: int
    region: int


@dataclass
class TokenScores:
    """A router's scores of the samples of one region, for all layers that share it.

    Attributes:
        logits: [B, N], at least float32.
        with_gradients: Whether gradients were on when they were computed.
        ranking: [B, N] int64, from the best token to the worst; None until a layer asks.
        places: Of every token in the ranking, [B, N] int32; None where no kernel asked.
    """

    logits: Tensor
    with_gradients: bool
    ranking: Tensor | None = None
    places: Tensor | None = None

    def ranked(self, scattered: Tensor) -> Tensor:
        """The ranking; `scattered` are the positions that ties are in the order of, [N] int64."""
        if self.ranking is None:
            self.ranking = rank_tokens(self.logits, scattered)
        return self.ranking

    def placed(self, kernels: Any, scattered: Tensor) -> tuple[Tensor, Tensor]:
        """The ranking and the places in it, by the kernels."""
        if self.ranking is None or self.places is None:
            self.ranking, self.places = kernels.rank(self.logits, scattered)
        return self.ranking, self.places
