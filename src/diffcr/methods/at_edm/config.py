"""Attention-driven token pruning (AT-EDM)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from diffcr.methods.config import MethodConfig
from diffcr.validation import Allowed, Share, between

_QUARTERS = 4
_LARGEST_PRUNED_SHARE = 0.95


@dataclass(frozen=True)
class ATEDMConfig(MethodConfig):
    """Attention-driven pruning (AT-EDM, Wang et al., CVPR 2024, arXiv 2405.05252).

    Layers form groups. After a group's first layer, tokens are ranked by a page rank over its
    self-attention map; the other layers compute the best alone, and after the last one every
    pruned token gets the update of the kept token that it attends to most.

    Attributes:
        compression_ratio: Share of tokens that a layer skips, mean over all layers and noise
            levels. How large it may be depends on the two below.
        layers_per_group: Consecutive layers of a group, at least 2; the last group may be smaller.
        early_regions: Of four equal parts of the noise range, how many of the noisiest prune less.
            (The paper's schedule prunes less in the first 15 of 50 steps.)
        early_share: What those prune, as a share of `compression_ratio`, in [0, 1]; the others
            prune more for it.
        page_rank_iterations: At least 1.

    Raises:
        DiffCRError: A value is outside its range.
    """

    method: ClassVar[str] = "at-edm"
    trainable: ClassVar[bool] = False
    timestep_regions: ClassVar[int] = _QUARTERS

    compression_ratio: float = 0.2
    layers_per_group: Annotated[int, Allowed("2 or more", lambda layers: layers >= 2)] = 4
    early_regions: Annotated[int, between(0, _QUARTERS - 1)] = 1
    early_share: Share = 0.5
    page_rank_iterations: Annotated[int, between(1, 1000)] = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        pruned_layers = 1 - 1 / self.layers_per_group
        largest = _LARGEST_PRUNED_SHARE * pruned_layers / self._late_factor
        ratios = between(0, round(largest - 0.005, 2))
        ratios.check("compression_ratio", self.compression_ratio)

    @property
    def _late_factor(self) -> float:
        early = self.early_regions / _QUARTERS
        return (1 - early * self.early_share) / (1 - early)

    def region_ratio(self, region: int) -> float:
        """Mean compression ratio of one of the four parts of the noise range, 0 the cleanest."""
        early = region >= _QUARTERS - self.early_regions
        return self.compression_ratio * (self.early_share if early else self._late_factor)
