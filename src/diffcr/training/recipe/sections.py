"""The sections of a recipe. Ranges are in the annotations; `check_fields` holds values to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from diffcr.validation import (
    AT_LEAST_0,
    AT_LEAST_1,
    Allowed,
    Count,
    NotNegative,
    NotZeroShare,
    Share,
    check_fields,
)

_SIDE = Allowed("a multiple of 8 from 8 to 8192", lambda side: 8 <= side <= 8192 and side % 8 == 0)
_TOKENS = Allowed("1 to 8192", lambda tokens: 1 <= tokens <= 8192)
_MASKS = Allowed("1 to 1000", lambda masks: 1 <= masks <= 1000)
_ITEMS = Allowed("1 or more, up to 10^9", lambda items: 1 <= items <= 10**9)


@dataclass(frozen=True)
class DataRecipe:
    """What is trained on.

    Attributes:
        source: "scenes", a folder in the Hub's imagefolder convention, or what `diffcr encode`
            wrote.
        size: Pictures, the first ones of the source; all of them by default.
        resolution: Side of the square that pictures are cropped to, in pixels.
        max_sequence_length: Tokens that a caption is cut or padded to.
        shuffle_window: Of encoded pictures, how many shards at a time are mixed.
    """

    source: str = "scenes"
    size: Annotated[int | None, _ITEMS] = None
    resolution: Annotated[int, _SIDE] = 96
    max_sequence_length: Annotated[int, _TOKENS] = 48
    shuffle_window: Count = 8

    def __post_init__(self) -> None:
        check_fields(self, "data.")


@dataclass(frozen=True)
class OptimizerRecipe:
    """The optimizer and the course of its learning rates.

    Attributes:
        algorithm: "adamw", or "muon" (Jordan et al. 2024, scaled as in Liu et al. 2025,
            arXiv 2502.16982) for the weight matrices of the blocks and AdamW for everything else;
            with `finetune: full` alone.
        learning_rate: Highest rate of host or adapter weights.
        router_learning_rate: Highest rate of the routers.
        ratio_learning_rate: Highest rate of the compression ratios.
        weight_decay: Decoupled decay of host or adapter weights; routers and ratios have none.
        warmup_steps: Steps in which all rates rise linearly to their highest value.
        schedule: What comes after the warm-up: "constant" rates, or a "cosine" down to
            `final_fraction`.
        final_fraction: Share of the highest rates that is left at the last step.
        gradient_clip: Largest norm of the gradient of all parameters together, 0 for none.
    """

    algorithm: Literal["adamw", "muon"] = "adamw"
    learning_rate: NotNegative = 1e-4
    router_learning_rate: NotNegative = 1e-3
    ratio_learning_rate: NotNegative = 5e-3
    weight_decay: NotNegative = 0.03
    warmup_steps: Annotated[int, AT_LEAST_0] = 0
    schedule: Literal["constant", "cosine"] = "constant"
    final_fraction: Share = 0.0
    gradient_clip: NotNegative = 1.0

    def __post_init__(self) -> None:
        check_fields(self, "optimizer.")


@dataclass(frozen=True)
class RatioLossRecipe:
    """lambda of the ratio loss (Sec. 3.3, App. B) and how it is adjusted.

    The mean ratio is expected to rise linearly to the target within the first `ramp` of the
    steps. Every `raise_every` steps at which it lags by more than `tolerance`, lambda, which begins
    at `weight`, is multiplied with `growth`, up to `largest`. After `settle` of the steps the
    ratios are rounded to the bins of inference and stay: the rest of the steps trains the model as
    it will be called. 0 is for runs that go on from a checkpoint, whose ratios are kept.

    Within the first `shared` of the steps all timestep regions of a layer have one ratio, as in
    DiffCR-L (Sec. 3.3), which every step moves; from then on each region has its own (Sec. 3.4).

    `noise_emphasis` is the power of the mean loss weight of a timestep region (`loss_weight`, with
    `largest_loss_weight`) that the ratios' gradient of the diffusion loss is multiplied with, by
    its mean over the regions. 0 is the loss as it is. An error of the predicted noise at t reaches
    a sample of DDIM's first-order steps with a weight of 1 / alpha_bar(t)^2, while the loss weights
    it with 1 / alpha_bar(t): 1 makes up for that.
    """

    weight: NotNegative = 3.0
    growth: Annotated[float, AT_LEAST_1] = 1.25
    raise_every: Count = 25
    ramp: NotZeroShare = 0.5
    tolerance: NotNegative = 0.005
    largest: NotNegative = 100.0
    shared: Share = 0.0
    settle: Share = 1.0
    noise_emphasis: NotNegative = 0.0

    def __post_init__(self) -> None:
        check_fields(self, "ratio_loss.")


@dataclass(frozen=True)
class InpaintingRecipe:
    """Training of a `LazyInpaintPipeline`.

    Attributes:
        part: What is trained: "both" models without a method, or the "decoder" or the "encoder"
            with the recipe's method attached, the other one as it is.
        masks_per_picture: Masks that are drawn for every picture, an item of the data each.
    """

    part: Literal["both", "decoder", "encoder"] = "both"
    masks_per_picture: Annotated[int, _MASKS] = 2

    def __post_init__(self) -> None:
        check_fields(self, "inpainting.")
