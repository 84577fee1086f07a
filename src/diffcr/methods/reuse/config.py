"""Token reuse along a sampler's trajectory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from diffcr.methods.config import MethodConfig
from diffcr.validation import Share, between

LARGEST_RATIO = 0.95
LEAST_LEVEL = 0.05
Granularity = Literal["steps", "tokens"]


@dataclass(frozen=True)
class ReuseConfig(MethodConfig):
    """What was computed at one denoising step serves later ones (training-free).

    A token that is not computed gets the update that all blocks together gave it when it was last
    computed. Of what is computed there are two forms:

    - "steps": some steps reuse the updates of all tokens, evenly spread over the run, and run no
      block at all. It keeps one tensor per token.
    - "tokens": every step computes the tokens whose input changed most since they were computed,
      and these attend to all tokens. The updates, keys and values of the others move by the mean
      change of those that are computed. It keeps keys and values of every layer besides.

    Attributes:
        compression_ratio: Share of tokens that are not computed at noise levels of `dense_above`
            and below, in [0, 0.95]; at one step in "tokens", over the steps in "steps".
        granularity: Which form.
        dense_above: Noise level, in [0.05, 1], above which every token is computed; the first step
            of a sampling run computes all of them whatever its level.
        drift: Share, in [0, 1], of the mean change of the computed tokens that the others follow in
            "tokens". The computed ones change most, so it is below 1.
    """

    method: ClassVar[str] = "reuse"
    trainable: ClassVar[bool] = False

    compression_ratio: Annotated[float, between(0, LARGEST_RATIO)] = 0.3
    granularity: Granularity = "steps"
    dense_above: Annotated[float, between(LEAST_LEVEL, 1)] = 0.85
    drift: Share = 0.7
