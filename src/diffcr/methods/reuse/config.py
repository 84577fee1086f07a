"""Token reuse along a sampler's trajectory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from diffcr.methods.config import MethodConfig
from diffcr.validation import require_between

LARGEST_RATIO = 0.95


@dataclass(frozen=True)
class ReuseConfig(MethodConfig):
    """A token that changed little since it was computed is not computed again (training-free).

    At a denoising step the tokens whose input changed most pass through all blocks, and attend to
    all tokens; every other one gets the update of all blocks that it got when it was last computed,
    moved by the mean change of those that are computed.

    Attributes:
        compression_ratio: Share of tokens that a denoising step skips once it may, in [0, 0.95].
            The mean over a sampling run is smaller: steps above `dense_above` skip none.
        dense_above: Noise level in (0, 1] above which every token is computed; the first step of a
            sampling run computes all of them whatever its level.
        drift: Share, in [0, 1], of the mean change of the computed tokens' updates, keys and values
            by which those of the skipped ones move. The computed ones change most, so it is
            below 1.

    Raises:
        DiffCRError: A value is outside its range.
    """

    method: ClassVar[str] = "reuse"
    trainable: ClassVar[bool] = False

    compression_ratio: float = 0.3
    dense_above: float = 0.85
    drift: float = 0.7

    def __post_init__(self) -> None:
        require_between("compression_ratio", self.compression_ratio, 0, LARGEST_RATIO)
        require_between("dense_above", self.dense_above, 0.05, 1)
        require_between("drift", self.drift, 0, 1)
