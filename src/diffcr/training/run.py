"""The parts of a training run: the model as it is fine-tuned, its step, what it writes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from diffcr.attached_model import disabled, get_compressor, is_attached
from diffcr.attachment import attach
from diffcr.compressor import Compressor
from diffcr.config import DenseConfig, DiffCRConfig
from diffcr.core.ratios import BINS
from diffcr.errors import DiffCRError
from diffcr.families import family_of
from diffcr.files import replacing_directory
from diffcr.io import save
from diffcr.lora import add_lora, has_lora, save_lora
from diffcr.training.data import EncodedDataset
from diffcr.training.draws import Draws, MicroBatch
from diffcr.training.objective import NoiseSchedule, diffusion_loss
from diffcr.training.recipe import TrainingRecipe


@dataclass(frozen=True)
class StepLosses:
    """Losses of one micro-batch.

    Attributes:
        total: Scalar with gradient.
        diffusion: Mean over the batch, detached.
        distillation: The same of `distillation_distance`, weighted over timesteps as the noise
            error is; 0 without a teacher.
    """

    total: Tensor
    diffusion: Tensor
    distillation: Tensor


def prepare_model(transformer: Any, recipe: TrainingRecipe) -> Compressor | None:
    """Attach the method and choose what is trained; None for a method without routers."""
    if not isinstance(recipe.method, DenseConfig):
        attach(transformer, recipe.method)
    compressor = get_compressor(transformer) if recipe.is_routed else None
    trains_host = recipe.finetune == "full"
    for name, parameter in transformer.named_parameters():
        parameter.requires_grad_(trains_host or name.startswith("diffcr."))
    if recipe.finetune == "lora":
        if has_lora(transformer):
            raise DiffCRError("the model has a DiffCR LoRA already: start from the base model")
        torch.manual_seed(recipe.seed)
        add_lora(transformer, recipe.lora_rank)
    if isinstance(recipe.method, DiffCRConfig):
        assert compressor is not None and compressor.ratios.requires_grad
    if recipe.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    return compressor


Teacher = Callable[[Mapping[str, Any]], Tensor]


def make_teacher(transformer: Any, recipe: TrainingRecipe, device: torch.device) -> Teacher | None:
    """The dense model that a run is distilled from, or None; called before anything is attached.

    Returns:
        From the arguments of the transformer's forward to its output, without gradient.
    """
    if recipe.distillation_weight == 0:
        return None
    if recipe.finetune != "full":
        dense = transformer
    else:
        # The weights move: a copy alone stays what the model was.
        dense = copy.deepcopy(transformer).requires_grad_(False).eval().to(device)
        for group in family_of(dense).block_groups if recipe.compile else ():
            for block in getattr(dense, group):
                block.compile(dynamic=False)
    precision = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.mixed_precision)

    @torch.no_grad()
    def teach(inputs: Mapping[str, Any]) -> Tensor:
        attached = disabled(dense) if is_attached(dense) else nullcontext()
        with attached, torch.autocast(device.type, precision, enabled=precision is not None):
            output: Tensor = dense(**inputs)[0]
        return output

    return teach


def make_accelerator(recipe: TrainingRecipe, directory: Path) -> Any:
    """accelerate's `Accelerator` for a run in `directory`."""
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState
    from accelerate.utils import TorchDynamoPlugin

    # accelerate keeps the first run's precision for the whole process otherwise.
    AcceleratorState._reset_state()
    directory.mkdir(parents=True, exist_ok=True)
    # At a ratio of 1 a layer computes no token, and its weights are in no graph.
    unused = isinstance(recipe.method, DiffCRConfig) and recipe.method.max_bin == BINS
    # Blocks under a method are compiled by `diffcr.compile`.
    dynamo = None
    if recipe.compile and recipe.is_dense:
        dynamo = TorchDynamoPlugin(backend="inductor", dynamic=False, use_regional_compilation=True)
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision=recipe.mixed_precision,
        gradient_accumulation_steps=recipe.gradient_accumulation,
        log_with=None if recipe.tracker == "none" else recipe.tracker,
        project_dir=str(directory),
        dynamo_plugin=dynamo,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=unused)],
    )
    if recipe.tracker != "none":
        accelerator.init_trackers(recipe.name)
    return accelerator


def make_draws(recipe: TrainingRecipe, dataset: EncodedDataset, processes: int) -> Draws:
    """The draws of a run.

    Raises:
        DiffCRError: A micro-batch cannot be split over the processes.
    """
    micro = recipe.batch_size // recipe.gradient_accumulation
    share = 2 * processes if recipe.is_paired else processes
    if micro % share:
        with_pairs = " in pairs" if recipe.is_paired else ""
        raise DiffCRError(
            f"a micro-batch of {micro} cannot be split{with_pairs} over {processes} processes: "
            f"make batch_size / gradient_accumulation a multiple of {share}"
        )
    return Draws(
        recipe.seed,
        len(dataset),
        dataset.latent_shape,
        micro,
        recipe.gradient_accumulation,
        recipe.timestep_regions,
        recipe.caption_dropout,
        recipe.is_paired,
    )


def attention_kernel(device: torch.device, mixed_precision: str) -> AbstractContextManager[None]:
    """Context for a training step with the kernel of attention that differentiates fastest.

    On a CPU without matrix units the fused kernel's backward is so slow in bfloat16 that it undoes
    what the linear layers gain (benchmarks/results/step-embedded-precision.json, torch 2.13).
    """
    if device.type == "cpu" and mixed_precision == "bf16":
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def forward_losses(
    model: nn.Module,
    transformer: nn.Module,
    schedule: NoiseSchedule,
    data: EncodedDataset,
    draw: MicroBatch,
    recipe: TrainingRecipe,
    device: torch.device,
    teacher: Teacher | None = None,
) -> StepLosses:
    """Diffusion loss, and distillation loss where asked for, of one micro-batch.

    Args:
        model: What is called: the transformer as accelerate wraps it.
        transformer: The transformer itself.
        schedule: Of the pipeline's scheduler.
        data: Encoded data.
        draw: This process's part of the draws.
        recipe: Of the run.
        device: Of the model.
        teacher: Of the distillation loss.
    """
    latents = data.latents[draw.indices].to(device)
    noise, timesteps = draw.noise.to(device), draw.timesteps.to(device)
    rows = data.captions(draw.indices, draw.drop_caption)
    inputs = family_of(transformer).call_inputs(
        transformer,
        schedule.add_noise(latents, noise, timesteps),
        timesteps,
        data.prompt_embeds[rows].to(device),
        data.prompt_masks[rows].to(device),
    )
    output = model(**inputs)[0].float()
    losses = diffusion_loss(schedule, output, latents, noise, timesteps)
    weight = schedule.loss_weight(timesteps, recipe.largest_loss_weight)
    diffusion = (weight * losses.noise + losses.variance).mean()
    distillation = torch.zeros((), device=device)
    if teacher is not None:
        guidance = recipe.distillation_guidance if recipe.is_paired else None
        distance = distillation_distance(output, teacher(inputs).float(), guidance)
        distillation = (weight * distance).mean()
    total = diffusion + recipe.distillation_weight * distillation
    return StepLosses(total, diffusion.detach(), distillation.detach())


def distillation_distance(output: Tensor, taught: Tensor, guidance: float | None) -> Tensor:
    """Mean squared distance of a model's output to its teacher's, [B].

    Args:
        output, taught: [B, C or 2 C, h, w] float32.
        guidance: None, or the scale g of `TrainingRecipe.distillation_guidance`; samples come in
            pairs then, with and without their caption, and both of a pair get the same addition.
    """
    error = output - taught
    distance: Tensor = error.square().flatten(1).mean(1)
    if guidance is None:
        return distance
    captioned, uncaptioned = error.unflatten(0, (-1, 2)).unbind(1)
    guided = guidance * captioned - (guidance - 1) * uncaptioned
    scale = guidance**2 + (guidance - 1) ** 2
    distance += (guided.square().flatten(1).mean(1) / scale).repeat_interleave(2)
    return distance


def save_result(transformer: Any, recipe: TrainingRecipe, directory: Path) -> None:
    """Write what was trained: a checkpoint for `diffcr.load`, or the dense model's weights."""
    if not recipe.is_dense:
        save(transformer, directory, weights=recipe.finetune == "full")
        return
    with replacing_directory(directory) as written:
        if recipe.finetune == "lora":
            save_lora(transformer, written / "adapter")
        else:
            transformer.save_pretrained(str(written / "transformer"))
