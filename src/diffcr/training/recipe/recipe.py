"""Recipes: what a run does, every value checked when it is made."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

from diffcr.errors import DiffCRError
from diffcr.methods.config import DenseConfig, MethodConfig
from diffcr.methods.diffcr.config import DiffCRConfig, RoutedConfig
from diffcr.training.recipe.sections import (
    DataRecipe,
    InpaintingRecipe,
    OptimizerRecipe,
    RatioLossRecipe,
)
from diffcr.validation import (
    AT_LEAST_1,
    Allowed,
    Count,
    NotNegative,
    NotZeroShare,
    Share,
    check_fields,
)

_SEED = Allowed("0 or more, below 2^63", lambda seed: 0 <= seed < 2**63)
_RANK = Allowed("1 to 4096", lambda rank: 1 <= rank <= 4096)
_BATCH = Allowed("1 to 65536", lambda size: 1 <= size <= 2**16)
_NAME = Allowed(
    "a name for a directory, of at most 100 characters without slashes",
    lambda name: (
        name.strip(". ") and name.isprintable() and len(name) <= 100 and not {*name} & {*"/\\"}
    ),
)
_DECAY = Allowed("a value in [0, 1)", lambda decay: 0 <= decay < 1)


@dataclass(frozen=True)
class TrainingRecipe:
    """One training run. Ranges are in the annotations.

    Attributes:
        name: What records, progress bars and the default directory call the run.
        method: Configuration of DiffCR, of MoD, of structured pruning, or of the dense model.
        model: Pipeline directory or Hub id, the embedded default if empty; for inpainting a
            directory.
        checkpoint: DiffCR checkpoint, directory or Hub id, to go on from: its ratios, routers, LoRA
            and weights, put into `model`. Its method is the recipe's but for target and branching.
        finetune: "lora", "full" (all host weights) or "none" (routers and ratios alone).
        lora_rank: Rank of the LoRA's updates.
        steps: Optimiser steps.
        batch_size: Samples per optimiser step over all processes and micro-batches; a multiple of
            `gradient_accumulation`.
        gradient_accumulation: Micro-batches per optimiser step.
        mixed_precision: Autocast of the forward.
        gradient_checkpointing: Trade time for memory.
        sharding: "fsdp" splits parameters, gradients, optimizer states and averages over the
            processes of torchrun (FSDP2), "none" keeps all of them in each.
        compile: Compile the blocks, one graph per number of kept tokens: minutes at first, faster
            steps then.
        ema_decay: Largest decay of the average of the trained weights that is saved; 0 saves the
            weights themselves.
        caption_dropout: Share of captions replaced by the empty one, for guidance.
        largest_loss_weight: The noise error is weighted with min(1 + 1 / SNR, this): 1 is the plain
            loss, more gives weight to noisy timesteps, where layout and colours are decided. For
            models that predict noise.
        timestep_density: Of a flow's noise levels before the pipeline's shift; "logit-normal" draws
            more in the middle (Esser et al. 2024, Sec. 3.1). Schedulers with discrete timesteps
            are "uniform".
        distillation_weight: What the squared distance to the output of the dense model before
            fine-tuning, weighted over timesteps as the noise error is, is multiplied with in the
            loss; 0 runs no such model.
        seed: Every draw of the run is a function of it and of the step.
        checkpoint_every: Steps between resumable checkpoints.
        log_every: Steps between lines of the history.
        by_product_step: A checkpoint is kept whenever the mean of its own ratios, averaged as its
            weights are, passes a multiple of it.
        tracker: "tensorboard" writes the history's values there too.
        data: Pictures and captions.
        optimizer: Optimizer and learning rates.
        ratio_loss: How the ratios are led to the method's target.
        inpainting: Training of a `LazyInpaintPipeline`; None for a text-to-image pipeline.

    Raises:
        DiffCRError: A value is outside its range, or does not go with another one.
    """

    name: Annotated[str, _NAME]
    method: MethodConfig = field(default_factory=DiffCRConfig)
    model: str = ""
    checkpoint: str = ""
    finetune: Literal["lora", "full", "none"] = "lora"
    lora_rank: Annotated[int, _RANK] = 32
    steps: Count = 1000
    batch_size: Annotated[int, _BATCH] = 16
    gradient_accumulation: Count = 1
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    gradient_checkpointing: bool = False
    sharding: Literal["none", "fsdp"] = "none"
    compile: bool = False
    ema_decay: Annotated[float, _DECAY] = 0.999
    caption_dropout: Share = 0.1
    largest_loss_weight: Annotated[float, AT_LEAST_1] = 1.0
    timestep_density: Literal["uniform", "logit-normal"] = "uniform"
    distillation_weight: NotNegative = 0.0
    seed: Annotated[int, _SEED] = 0
    checkpoint_every: Count = 200
    log_every: Count = 10
    by_product_step: NotZeroShare = 0.05
    tracker: Literal["none", "tensorboard"] = "none"
    data: DataRecipe = field(default_factory=DataRecipe)
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    ratio_loss: RatioLossRecipe = field(default_factory=RatioLossRecipe)
    inpainting: InpaintingRecipe | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.method.trainable:
            raise DiffCRError(f"method is {self.method.method!r}, which is not trained: attach it")
        if self.batch_size % self.gradient_accumulation:
            raise DiffCRError(
                f"batch_size is {self.batch_size}: give a multiple of gradient_accumulation "
                f"({self.gradient_accumulation})"
            )
        self._check_method()
        if self.sharding == "fsdp":
            self._check_sharding()
        if self.inpainting is not None:
            self._check_inpainting(self.inpainting)

    def _check_method(self) -> None:
        method = self.method.method
        if self.optimizer.algorithm == "muon" and self.finetune != "full":
            raise DiffCRError(
                f"optimizer.algorithm is 'muon' with finetune {self.finetune!r}: Muon is for whole "
                "matrices, give 'full' or choose 'adamw'"
            )
        if self.optimizer.algorithm == "muon" and self.mixed_precision == "fp16":
            # accelerate's loss scaler would un-scale the gradients for each of the two optimizers.
            raise DiffCRError(
                "optimizer.algorithm is 'muon' with mixed_precision 'fp16', whose scaled gradients "
                "two optimizers cannot share: give 'bf16'"
            )
        if isinstance(self.method, RoutedConfig) and self.method.bypass == "reuse":
            raise DiffCRError(
                "method.bypass is 'reuse', which is for sampling: train with another one, and call "
                "compressor.set_bypass('reuse') on the result"
            )
        if not self.is_routed and self.finetune == "none":
            raise DiffCRError(
                f"finetune is 'none' for the {method} method: there is nothing to train"
            )
        if self.is_dense and self.distillation_weight > 0:
            raise DiffCRError(
                f"distillation_weight is {self.distillation_weight} for the dense method, which is "
                "its own teacher: give 0"
            )
        if self.is_dense and self.checkpoint:
            raise DiffCRError(
                f"checkpoint is {self.checkpoint!r} for the dense method, which has none: give the "
                "method of the checkpoint"
            )

    def _check_sharding(self) -> None:
        untried = {
            f"method {self.method.method!r}": not (self.is_routed or self.is_dense),
            "optimizer.algorithm 'muon'": self.optimizer.algorithm == "muon",
            "mixed_precision 'fp16'": self.mixed_precision == "fp16",
            "compile": self.compile,
            "inpainting": self.inpainting is not None,
        }
        for setting, given in untried.items():
            if given:
                raise DiffCRError(
                    f"sharding is 'fsdp', which does not go with {setting}: give 'none', or "
                    "another setting"
                )

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
