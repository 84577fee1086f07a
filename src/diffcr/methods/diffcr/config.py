"""DiffCR, and uniform ratios on the same routers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from diffcr.errors import DiffCRError
from diffcr.methods.config import MethodConfig
from diffcr.validation import Allowed, NotZeroShare, between

Gate = Literal["identity", "sigmoid", "sigmoid-mlp"]
Branching = Literal["sampled", "both"]
Bypass = Literal["identity", "linear", "reuse"]

LARGEST_BYPASS_RANK = 4096
LARGEST_AGE = 1000
MOST_SHARING = 1000


def _bins(least: int, most: int) -> Allowed:
    """Ratios of the bins from `least` to `most`, in tenths."""

    def holds(ratio: float) -> bool:
        on_a_bin = abs(ratio * 10 - round(ratio * 10)) <= 1e-6
        return on_a_bin and least / 10 <= ratio <= most / 10

    return Allowed(f"a multiple of 0.1 from {least / 10} to {most / 10}", holds)


@dataclass(frozen=True)
class DiffCRConfig(MethodConfig):
    """Learned token compression (DiffCR, Sec. 3.2 to 3.4).

    Attributes:
        target_compression_ratio: Mean share of tokens that bypass a layer, over all layers and
            timestep regions, which training aims at; in [0, `max_compression_ratio`].
        timestep_regions: Equal parts of the noise range that own a ratio each, 1 to as many as
            there are timesteps, 1000. 1 is DiffCR-L (one ratio per layer), more is DiffCR-LT.
        max_compression_ratio: Upper bound of every ratio, a multiple of 0.1 in [0.1, 1].
            1 lets training skip a layer for every token.
        gate: How the router's score scales the update of the kept tokens. "identity" is
            2 * sigmoid, 1 for a zero-initialised router, so that attaching changes no output;
            "sigmoid" is the paper's text, "sigmoid-mlp" its pseudo-code (the MLP branch alone).
        branching: How training interpolates between the two bins around a ratio: "both" runs both
            (Sec. 3.3), "sampled" runs both with `mixing_probability` and else one of them, drawn by
            proximity, at about the cost of a dense step.
        mixing_probability: Probability in (0, 1] that "sampled" runs both bins.
        bypass: What a skipped token gets from its layer. "identity" is nothing, the paper's form;
            "linear" a low-rank map of the token and a bias per timestep region, which
            `diffcr.fit_bypass` fits and training trains; "reuse", for sampling alone, the update
            that the layer gave it when it was last computed in this sampling run, whose first step
            computes every token.
        bypass_rank: Rank of the map of "linear", 1 to the model's width.
        max_age: Calls, 1 or more, after which "reuse" computes a token before those that the
            router prefers, as far as the ratio lets it.
        route_every: Neighbouring layers, 1 or more, that share a router: it scores and ranks the
            tokens before the first of them, for all of them. Each keeps a ratio of its own. 1, the
            paper's form, is a router for every layer.

    Raises:
        DiffCRError: A value is outside its range.
    """

    method: ClassVar[str] = "diffcr"
    initial_compression_ratio: ClassVar[float] = 0.0

    target_compression_ratio: float = 0.2
    timestep_regions: Annotated[int, between(1, 1000)] = 4
    max_compression_ratio: Annotated[float, _bins(1, 10)] = 0.9
    gate: Gate = "identity"
    branching: Branching = "sampled"
    mixing_probability: NotZeroShare = 1 / 3
    bypass: Bypass = "identity"
    bypass_rank: Annotated[int, between(1, LARGEST_BYPASS_RANK)] = 16
    max_age: Annotated[int, between(1, LARGEST_AGE)] = 1
    route_every: Annotated[int, between(1, MOST_SHARING)] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        bound = self.max_compression_ratio
        if not 0 <= self.target_compression_ratio <= bound:
            raise DiffCRError(
                f"target_compression_ratio is {self.target_compression_ratio}: "
                f"give a value from 0 to max_compression_ratio ({bound})"
            )

    @property
    def max_bin(self) -> int:
        """`max_compression_ratio` in tenths, 1 to 10."""
        return round(self.max_compression_ratio * 10)


@dataclass(frozen=True)
class MoDConfig(MethodConfig):
    """One fixed compression ratio for every layer and timestep; only the routers are learned.

    Mixture-of-Depths (Raposo et al. 2024, arXiv 2404.02258) as DiffCR compares with it (Table 1):
    every layer is routed, at the same ratio, in training as at inference.

    Attributes:
        compression_ratio: Share of tokens that bypass a layer, a multiple of 0.1 in [0, 0.9].
        gate, bypass, bypass_rank, max_age, route_every: As those of `DiffCRConfig`.

    Raises:
        DiffCRError: A value is outside its range.
    """

    method: ClassVar[str] = "mod"
    timestep_regions: ClassVar[int] = 1
    max_compression_ratio: ClassVar[float] = 0.9
    max_bin: ClassVar[int] = 9

    compression_ratio: Annotated[float, _bins(0, 9)] = 0.2
    gate: Gate = "identity"
    bypass: Bypass = "identity"
    bypass_rank: Annotated[int, between(1, LARGEST_BYPASS_RANK)] = 16
    max_age: Annotated[int, between(1, LARGEST_AGE)] = 1
    route_every: Annotated[int, between(1, MOST_SHARING)] = 1

    @property
    def initial_compression_ratio(self) -> float:
        """What every layer starts with."""
        return self.compression_ratio

    @property
    def target_compression_ratio(self) -> float:
        """What every layer ends with."""
        return self.compression_ratio


RoutedConfig = DiffCRConfig | MoDConfig
