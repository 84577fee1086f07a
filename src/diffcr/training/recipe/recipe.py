"""Recipes: what a run does, every value checked when it is made."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from diffcr.errors import DiffCRError
from diffcr.methods.config import DenseConfig, MethodConfig
from diffcr.methods.diffcr.config import DiffCRConfig, RoutedConfig
from diffcr.training.recipe.sections import (
    DataRecipe,
    InpaintingRecipe,
    OptimizerRecipe,
    RatioLossRecipe,
)
from diffcr.validation import require


@dataclass(frozen=True)
class TrainingRecipe:
    """One training run.

    Attributes:
        name: Of the run.
        method: Configuration of DiffCR, of MoD, of structured pruning, or of the dense model.
        model: Pipeline directory or Hub id, the embedded default if empty; for inpainting a
            directory.
        checkpoint: DiffCR checkpoint, directory or Hub id, to go on from: its ratios, routers, LoRA
            and weights, put into `model`. Its method is the recipe's but for target and branching.
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
        seed: Of every draw.
        checkpoint_every: Steps between resumable checkpoints.
        log_every: Steps between lines of the history.
        by_product_step: A checkpoint is kept whenever the mean of its own ratios, averaged as its
            weights are, passes a multiple of it.
        tracker: "tensorboard" writes the history's values there too.
        inpainting: Training of a `LazyInpaintPipeline`; None for a text-to-image pipeline.
    """

    name: str
    method: MethodConfig = field(default_factory=DiffCRConfig)
    model: str = ""
    checkpoint: str = ""
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
    seed: int = 0
    checkpoint_every: int = 200
    log_every: int = 10
    by_product_step: float = 0.05
    tracker: Literal["none", "tensorboard"] = "none"
    data: DataRecipe = field(default_factory=DataRecipe)
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    ratio_loss: RatioLossRecipe = field(default_factory=RatioLossRecipe)
    inpainting: InpaintingRecipe | None = None

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
        if self.optimizer.algorithm == "muon" and self.finetune != "full":
            raise DiffCRError(
                f"optimizer.algorithm is 'muon' with finetune {self.finetune!r}: Muon is for whole "
                "matrices, give 'full' or choose 'adamw'"
            )
        if not self.method.trainable:
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

        if self.checkpoint and self.is_dense:
            raise DiffCRError(
                f"checkpoint is {self.checkpoint!r} for the dense method, which has none: give the "
                "method of the checkpoint"
            )
        if self.inpainting is not None:
            self._check_inpainting(self.inpainting)

    def _check_inpainting(self, inpainting: InpaintingRecipe) -> None:
        if self.is_dense != (inpainting.part == "both") or (
            self.is_dense and self.finetune != "full"
        ):
            raise DiffCRError(
                f"inpainting.part is {inpainting.part!r} for the {self.method.method} method with "
                f"finetune {self.finetune!r}: 'both' models are trained dense and 'full', a method "
                "is attached to one of them"
            )
        if inpainting.part == "encoder" and self.timestep_regions > 1:
            raise DiffCRError(
                f"method.timestep_regions is {self.timestep_regions} for the encoder, which sees "
                "no timestep: give 1"
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
    def timestep_regions(self) -> int:
        """Regions that micro-batches are drawn from."""
        return self.method.timestep_regions if isinstance(self.method, DiffCRConfig) else 1

    def to_json_dict(self) -> dict[str, Any]:
        """What a recipe file of this run holds."""
        return {**asdict(self), "method": self.method.to_json_dict()}

    def shortened(self, factor: float) -> TrainingRecipe:
        """A copy with fewer steps and pictures, at least 2 each, for a trial."""
        size = self.data.size and max(2, round(self.data.size * factor))
        steps = max(2, round(self.steps * factor))
        return replace(self, steps=steps, data=replace(self.data, size=size))

    def with_changes(self, **changes: Any) -> TrainingRecipe:
        """A copy with other values; None leaves a value as it is."""
        return replace(self, **{k: v for k, v in changes.items() if v is not None})
