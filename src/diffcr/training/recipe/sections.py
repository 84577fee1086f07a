"""The sections of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffcr.validation import require


@dataclass(frozen=True)
class DataRecipe:
    """What is trained on.

    Attributes:
        source: "scenes", or a folder in the Hub's imagefolder convention.
        size: Number of items, all by default.
        resolution: Pictures are cropped to a square of this side, in pixels.
        max_sequence_length: Of the captions, in tokens.
    """

    source: str = "scenes"
    size: int | None = None
    resolution: int = 96
    max_sequence_length: int = 48

    def __post_init__(self) -> None:
        require(self.size is None or self.size >= 1, "data.size", self.size, "1 or more")
        length = self.max_sequence_length
        require(length >= 1, "data.max_sequence_length", length, "1 or more")
        good = self.resolution >= 8 and self.resolution % 8 == 0
        require(good, "data.resolution", self.resolution, "a multiple of 8, 8 or more")


@dataclass(frozen=True)
class OptimizerRecipe:
    """The optimizer and its schedule.

    Attributes:
        algorithm: "adamw", or "muon" (Jordan et al. 2024, scaled as in Liu et al. 2025,
            arXiv 2502.16982) for the weight matrices of the blocks and AdamW for everything else;
            with `finetune: full` alone.
        learning_rate: Of host or adapter weights.
        router_learning_rate: Of the routers.
        ratio_learning_rate: Of the compression ratios.
        weight_decay: Of host or adapter weights; routers and ratios have none.
        warmup_steps: Linear warm-up of all rates.
        schedule: After the warm-up; "cosine" falls to `final_fraction`.
        final_fraction: Of the learning rate, at the last step.
        gradient_clip: Largest norm of the gradient, 0 for none.
    """

    algorithm: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-4
    router_learning_rate: float = 1e-3
    ratio_learning_rate: float = 5e-3
    weight_decay: float = 0.03
    warmup_steps: int = 0
    schedule: Literal["constant", "cosine"] = "constant"
    final_fraction: float = 0.0
    gradient_clip: float = 1.0

    def __post_init__(self) -> None:
        for name in (
            "learning_rate",
            "router_learning_rate",
            "ratio_learning_rate",
            "weight_decay",
            "warmup_steps",
            "gradient_clip",
        ):
            value = getattr(self, name)
            require(value >= 0, f"optimizer.{name}", value, "0 or more")
        share = self.final_fraction
        require(0 <= share <= 1, "optimizer.final_fraction", share, "a value in [0, 1]")


@dataclass(frozen=True)
class RatioLossRecipe:
    """lambda of the ratio loss (Sec. 3.3, App. B) and how it is adjusted.

    The mean ratio is expected to rise linearly to the target within the first `ramp` of the
    steps. Every `raise_every` steps at which it lags by more than `tolerance`, lambda is multiplied
    with `growth`, up to `largest`. After `settle` of the steps the ratios are rounded to the bins
    of inference and stay: the rest of the steps trains the model as it will be called. 0 is for
    runs that go on from a checkpoint, whose ratios are kept.

    Within the first `shared` of the steps all timestep regions of a layer have one ratio, as in
    DiffCR-L (Sec. 3.3), which every step moves; from then on each region has its own (Sec. 3.4).

    `noise_emphasis` is the power of the mean loss weight of a timestep region (`loss_weight`, with
    `largest_loss_weight`) that the ratios' gradient of the diffusion loss is multiplied with, by
    its mean over the regions. 0 is the loss as it is. An error of the predicted noise at t reaches
    a sample of DDIM's first-order steps with a weight of 1 / alpha_bar(t)^2, while the loss weights
    it with 1 / alpha_bar(t): 1 makes up for that.
    """

    weight: float = 3.0
    growth: float = 1.25
    raise_every: int = 25
    ramp: float = 0.5
    tolerance: float = 0.005
    largest: float = 100.0
    shared: float = 0.0
    settle: float = 1.0
    noise_emphasis: float = 0.0

    def __post_init__(self) -> None:
        require(
            self.noise_emphasis >= 0, "ratio_loss.noise_emphasis", self.noise_emphasis, "0 or more"
        )
        require(0 <= self.shared <= 1, "ratio_loss.shared", self.shared, "a value in [0, 1]")
        require(0 <= self.settle <= 1, "ratio_loss.settle", self.settle, "a value in [0, 1]")
        require(self.weight >= 0, "ratio_loss.weight", self.weight, "0 or more")
        require(self.growth >= 1, "ratio_loss.growth", self.growth, "1 or more")
        require(self.raise_every >= 1, "ratio_loss.raise_every", self.raise_every, "1 or more")
        require(0 < self.ramp <= 1, "ratio_loss.ramp", self.ramp, "a value in (0, 1]")
        require(self.tolerance >= 0, "ratio_loss.tolerance", self.tolerance, "0 or more")
        require(self.largest >= 0, "ratio_loss.largest", self.largest, "0 or more")


@dataclass(frozen=True)
class InpaintingRecipe:
    """Training of a `LazyInpaintPipeline`.

    Attributes:
        part: What is trained: "both" models without a method, or the "decoder" or the "encoder"
            with the recipe's method attached, the other one as it is.
        masks_per_picture: Masks that are drawn for every picture.
    """

    part: Literal["both", "decoder", "encoder"] = "both"
    masks_per_picture: int = 2

    def __post_init__(self) -> None:
        count = self.masks_per_picture
        require(count >= 1, "inpainting.masks_per_picture", count, "1 or more")
