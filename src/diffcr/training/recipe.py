"""Recipes: what a run does, every value checked when it is made."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from diffcr.config import (
    DenseConfig,
    DiffCRConfig,
    RoutedConfig,
    TrainedConfig,
    config_to_json_dict,
)
from diffcr.config.validation import require
from diffcr.errors import DiffCRError


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
    of inference and stay: the rest of the steps trains the model as it will be called.

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
    settle: float = 1.0
    noise_emphasis: float = 0.0

    def __post_init__(self) -> None:
        require(
            self.noise_emphasis >= 0, "ratio_loss.noise_emphasis", self.noise_emphasis, "0 or more"
        )
        require(0 < self.settle <= 1, "ratio_loss.settle", self.settle, "a value in (0, 1]")
        require(self.weight >= 0, "ratio_loss.weight", self.weight, "0 or more")
        require(self.growth >= 1, "ratio_loss.growth", self.growth, "1 or more")
        require(self.raise_every >= 1, "ratio_loss.raise_every", self.raise_every, "1 or more")
        require(0 < self.ramp <= 1, "ratio_loss.ramp", self.ramp, "a value in (0, 1]")
        require(self.tolerance >= 0, "ratio_loss.tolerance", self.tolerance, "0 or more")
        require(self.largest >= 0, "ratio_loss.largest", self.largest, "0 or more")


@dataclass(frozen=True)
class TrainingRecipe:
    """One training run.

    Attributes:
        name: Of the run.
        method: Configuration of DiffCR, of MoD, of structured pruning, or of the dense model.
        model: Pipeline directory or Hub id, the embedded default if empty.
        finetune: "lora", "full" (all host weights) or "none" (routers and ratios alone).
        lora_rank: Rank of the LoRA.
        steps: Optimiser steps.
        batch_size: Samples per optimiser step over all processes and micro-batches.
        gradient_accumulation: Micro-batches per optimiser step.
        mixed_precision: Autocast of the forward.
        gradient_checkpointing: Trade time for memory.
        compile: Compile the blocks, one graph per number of kept tokens: minutes at first, faster
            steps then.
        ema_decay: Of the average of the trained weights that is saved, 0 for none.
        caption_dropout: Share of captions replaced by the empty one, for guidance.
        largest_loss_weight: The noise error is weighted with min(1 + 1 / SNR, this): 1 is the plain
            loss, more gives weight to noisy timesteps, where layout and colours are decided.
        distillation_weight: Of the squared distance to the output of the dense model before
            fine-tuning, weighted over timesteps as the noise error is; 0 for none.
        distillation_guidance: With more than 1, half of a batch repeats the other half with the
            empty caption, and the distance of what classifier-free guidance at this scale makes of
            the two outputs is added, divided by g^2 + (g - 1)^2: what independent errors of the two
            become in it. Errors in which the two differ are what guidance shows in pictures.
        seed: Of every draw.
        checkpoint_every: Steps between resumable checkpoints.
        log_every: Steps between lines of the history.
        by_product_step: A checkpoint is kept whenever the mean ratio passes a multiple of it.
        tracker: "tensorboard" writes the history's values there too.
    """

    name: str
    method: TrainedConfig = field(default_factory=DiffCRConfig)
    model: str = ""
    finetune: Literal["lora", "full", "none"] = "lora"
    lora_rank: int = 32
    steps: int = 1000
    batch_size: int = 16
    gradient_accumulation: int = 1
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    gradient_checkpointing: bool = False
    compile: bool = False
    ema_decay: float = 0.999
    caption_dropout: float = 0.1
    largest_loss_weight: float = 1.0
    distillation_weight: float = 0.0
    distillation_guidance: float = 1.0
    seed: int = 0
    checkpoint_every: int = 200
    log_every: int = 10
    by_product_step: float = 0.05
    tracker: Literal["none", "tensorboard"] = "none"
    data: DataRecipe = field(default_factory=DataRecipe)
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    ratio_loss: RatioLossRecipe = field(default_factory=RatioLossRecipe)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "gradient_accumulation", "checkpoint_every"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(0 <= self.seed < 2**63, "seed", self.seed, "0 or more, below 2^63")
        require(self.log_every >= 1, "log_every", self.log_every, "1 or more")
        require(self.lora_rank >= 1, "lora_rank", self.lora_rank, "1 or more")
        require(
            self.batch_size % self.gradient_accumulation == 0,
            "batch_size",
            self.batch_size,
            f"a multiple of gradient_accumulation ({self.gradient_accumulation})",
        )
        require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "a value in [0, 1)")
        require(0 <= self.caption_dropout <= 1, "caption_dropout", self.caption_dropout, "[0, 1]")
        require(
            self.largest_loss_weight >= 1,
            "largest_loss_weight",
            self.largest_loss_weight,
            "1 or more",
        )
        require(0 < self.by_product_step <= 1, "by_product_step", self.by_product_step, "(0, 1]")
        require(
            self.distillation_weight >= 0,
            "distillation_weight",
            self.distillation_weight,
            "0 or more",
        )
        guidance = self.distillation_guidance
        require(guidance >= 1, "distillation_guidance", guidance, "1 or more")
        if self.optimizer.algorithm == "muon" and self.finetune != "full":
            raise DiffCRError(
                f"optimizer.algorithm is 'muon' with finetune {self.finetune!r}: Muon is for whole "
                "matrices, give 'full' or choose 'adamw'"
            )
        if not isinstance(self.method, TrainedConfig):
            raise DiffCRError(f"method is {self.method.method!r}, which is not trained: attach it")
        if not self.is_routed and self.finetune == "none":
            raise DiffCRError(
                f"finetune is 'none' for the {self.method.method} method: there is nothing to train"
            )
        if isinstance(self.method, DenseConfig) and self.distillation_weight > 0:
            raise DiffCRError(
                f"distillation_weight is {self.distillation_weight} for the dense method, which is "
                "its own teacher: give 0"
            )

    @property
    def is_dense(self) -> bool:
        """Whether the bare model is trained."""
        return isinstance(self.method, DenseConfig)

    @property
    def is_routed(self) -> bool:
        """Whether there are routers to train."""
        return isinstance(self.method, RoutedConfig)

    @property
    def is_paired(self) -> bool:
        """Whether a micro-batch holds every sample with and without its caption."""
        return self.distillation_weight > 0 and self.distillation_guidance > 1

    @property
    def timestep_regions(self) -> int:
        """Regions that micro-batches are drawn from."""
        return self.method.timestep_regions if isinstance(self.method, DiffCRConfig) else 1

    def to_json_dict(self) -> dict[str, Any]:
        """What a recipe file of this run holds."""
        return {**asdict(self), "method": config_to_json_dict(self.method)}

    def with_changes(self, **changes: Any) -> TrainingRecipe:
        """A copy with other values; None leaves a value as it is."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})
