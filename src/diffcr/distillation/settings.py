"""What a distillation does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from diffcr.validation import AT_LEAST_0, Count, Share, between, check_fields


@dataclass(frozen=True)
class DistillationSettings:
    """Settings of `distill`. Ranges are in the annotations.

    Attributes:
        steps: Optimiser steps; each is one sampling run of a batch.
        batch_size: Prompts of a run.
        budgets: What runs spend, as `TokenReuser.set_budget` takes it, drawn anew for each; empty
            for what is attached.
        num_inference_steps: Denoising steps of a run.
        guidance_scale: Of classifier-free guidance.
        lora_rank: Of the LoRA, where the model has none of DiffCR's yet.
        learning_rate: Of AdamW at its highest; it falls to 0 along a cosine.
        warmup_steps: Steps over which it rises.
        mixed_precision: Autocast of the model's calls.
        offload_activations: Keep what backward needs in the CPU's memory, where a GPU's is too
            small for the graphs of all steps that compute.
        seed: Every draw is a function of it and of the step.
        checkpoint_every: Steps between checkpoints to go on from.

    Raises:
        DiffCRError: A value is outside its range.
    """

    steps: Count = 300
    batch_size: Annotated[int, between(1, 1024)] = 8
    budgets: tuple[float, ...] = ()
    num_inference_steps: Annotated[int, between(2, 1000)] = 20
    guidance_scale: Annotated[float, between(0, 1000)] = 4.5
    lora_rank: Annotated[int, between(1, 4096)] = 32
    learning_rate: Share = 5e-4
    warmup_steps: Annotated[int, AT_LEAST_0] = 10
    mixed_precision: Literal["no", "bf16"] = "no"
    offload_activations: bool = False
    seed: Annotated[int, between(0, 2**62)] = 0
    checkpoint_every: Count = 25

    def __post_init__(self) -> None:
        check_fields(self)
