"""What "Look inside" shows of one picture, step by step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from PIL import Image

from diffcr.core.regions import TIMESTEPS, region_of
from diffcr.evaluation.compression import Compression
from diffcr.evaluation.reuse_maps import ReuseMaps
from diffcr.evaluation.router_maps import RouterMaps
from diffcr.studio.token_maps import age_map, ratio_table, shade_map, step_table


class InsideView(ABC):
    """Maps of one picture."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Denoising steps, 1 or more."""

    @property
    @abstractmethod
    def layers(self) -> int:
        """Layers whose maps differ; 0 where all compute the same tokens."""

    @abstractmethod
    def draw(self, step: int, layer: int | None) -> Image.Image:
        """The map of a step over the picture, of one layer or of all."""

    @abstractmethod
    def table(self, step: int, layer: int | None) -> str:
        """HTML of the numbers beside it."""

    @abstractmethod
    def describe(self, step: int, layer: int | None) -> str:
        """The map in a sentence."""


@dataclass(frozen=True)
class RoutedView(InsideView):
    """Tokens that routers let through.

    Attributes:
        maps: Of all steps.
        compression: The table of ratios.
        regions: Timestep region of every step.
    """

    maps: RouterMaps
    compression: Compression
    regions: tuple[int, ...]

    @classmethod
    def of(cls, maps: RouterMaps, transformer: Any) -> RoutedView:
        """Maps of a transformer that is attached."""
        count = transformer.diffcr.timestep_regions
        regions = tuple(region_of(timestep / TIMESTEPS, count) for timestep in maps.timesteps)
        return cls(maps, Compression.of(transformer.diffcr), regions)

    @property
    def steps(self) -> int:
        """Denoising steps."""
        return len(self.maps.timesteps)

    @property
    def layers(self) -> int:
        """Of the transformer."""
        return int(self.maps.kept.shape[1])

    def draw(self, step: int, layer: int | None) -> Image.Image:
        """Darker where fewer layers compute a token."""
        kept = self.maps.kept[step]
        return shade_map(self.maps.image, kept.mean(axis=0) if layer is None else kept[layer])

    def table(self, step: int, layer: int | None) -> str:
        """The table of ratios."""
        return ratio_table(self.compression, layer, self.regions[step])

    def describe(self, step: int, layer: int | None) -> str:
        """How much is computed."""
        kept = self.maps.kept[step]
        where, share = "all layers", kept.mean()
        if layer is not None:
            where, share = f"layer {layer}", kept[layer].mean()
        level = f"timestep {self.maps.timesteps[step]:g}"
        return (
            f"Step {step + 1} of {self.steps}, {level}, {where}: {share:.0%} of the tokens are "
            "computed. Dark tokens bypass the layer" + ("s." if layer is None else ".")
        )


@dataclass(frozen=True)
class ReusedView(InsideView):
    """Ages of tokens under reuse.

    Attributes:
        maps: Of all steps.
    """

    maps: ReuseMaps

    @property
    def steps(self) -> int:
        """Denoising steps."""
        return len(self.maps.ages)

    @property
    def layers(self) -> int:
        """Tokens are chosen once, for all layers."""
        return 0

    def draw(self, step: int, layer: int | None) -> Image.Image:
        """Tinted where tokens were not computed."""
        return age_map(self.maps.image, self.maps.ages[step], max(1, int(self.maps.ages.max())))

    def table(self, step: int, layer: int | None) -> str:
        """What every step computes."""
        return step_table(self.maps.computed_shares(), step)

    def describe(self, step: int, layer: int | None) -> str:
        """How much is computed, and how old the rest is."""
        ages = self.maps.ages[step]
        level = f"noise level {self.maps.noise_levels[step]:.2f}"
        old = ages[ages > 0]
        said = f"Step {step + 1} of {self.steps}, {level}: {(ages == 0).mean():.0%} of the tokens "
        said += "are computed."
        if not old.size:
            return said
        return (
            f"{said} Tinted tokens reuse what they got up to {old.max()} "
            f"step{'s' * bool(old.max() > 1)} ago, {old.mean():.1f} on average; yellow is oldest."
        )
