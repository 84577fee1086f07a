"""The parts of a run: models as they are fine-tuned, their teacher, what it runs on and saves."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from diffcr.binding.attachment import attach
from diffcr.binding.compilation import allow_graph_per_shape, compile, uncompile_blocks
from diffcr.binding.lora import add_lora, has_lora, lora_config, require_lora_gradients, save_lora
from diffcr.binding.model import computing_all_tokens, get_compressor, is_attached
from diffcr.checkpoint.loading import load_to_train
from diffcr.checkpoint.saving import require_replaceable, save
from diffcr.errors import DiffCRError
from diffcr.files import replacing_directory
from diffcr.hosts import host_blocks_within, models_within
from diffcr.methods.config import DenseConfig
from diffcr.methods.diffcr.compressor import Compressor
from diffcr.methods.diffcr.config import DiffCRConfig, RoutedConfig
from diffcr.methods.diffcr.ratios import BINS
from diffcr.training.draws import Draws
from diffcr.training.losses import Teacher
from diffcr.training.recipe import TrainingRecipe
from diffcr.training.sharded import shard_model
from diffcr.training.task import Task


def make_trainable(transformer: Any, recipe: TrainingRecipe) -> Compressor | None:
    """Attach the method, as a checkpoint has it if the recipe names one, and choose what is
    trained; None for a method without routers."""
    if not isinstance(recipe.method, DenseConfig):
        if not recipe.checkpoint:
            attach(transformer, recipe.method)
        elif is_attached(transformer):
            raise DiffCRError("checkpoint is for the bare model, and a method is attached: detach")
        else:
            load_to_train(transformer, recipe.checkpoint, recipe.method)
    compressor = get_compressor(transformer) if recipe.is_routed else None
    trains_host = recipe.finetune == "full"
    for name, parameter in transformer.named_parameters():
        parameter.requires_grad_(trains_host or name.startswith("diffcr."))
    if has_lora(transformer):
        _go_on_with_lora(transformer, recipe)
    elif recipe.finetune == "lora":
        torch.manual_seed(recipe.seed)
        add_lora(transformer, recipe.lora_rank)
    if isinstance(recipe.method, DiffCRConfig):
        assert compressor is not None and compressor.ratios.requires_grad
    return compressor


def _go_on_with_lora(transformer: nn.Module, recipe: TrainingRecipe) -> None:
    if recipe.finetune == "full":
        raise DiffCRError(
            "finetune is 'full' and the model has a DiffCR LoRA: give 'lora', or 'none'"
        )
    if recipe.finetune == "none":
        return
    if not recipe.checkpoint:
        raise DiffCRError("the model has a DiffCR LoRA already: start from the base model")
    rank = lora_config(transformer).r
    if rank != recipe.lora_rank:
        raise DiffCRError(
            f"lora_rank is {recipe.lora_rank}, that of {recipe.checkpoint} {rank}: give that"
        )
    require_lora_gradients(transformer)


def prepare_models(task: Task, recipe: TrainingRecipe, device: torch.device) -> Compressor | None:
    """Bring a task's models to where and what a run trains; as `make_trainable`.

    A model that is to be sharded stays on the CPU: no device has to hold all of it.
    """
    task.model.requires_grad_(False)
    compressor = make_trainable(task.trained, recipe)
    if recipe.gradient_checkpointing:
        # In every model that gradients pass through, trained or not.
        for part in models_within(task.model):
            enable: Any = part.enable_gradient_checkpointing
            enable()
    task.model.to("cpu" if recipe.sharding == "fsdp" else device).eval()
    task.trained.train()
    if recipe.compile and not recipe.is_dense:
        compile(task.trained)
    return compressor


def make_teacher(task: Task, recipe: TrainingRecipe, device: torch.device) -> Teacher | None:
    """The dense model that a run is distilled from, or None; called before anything is attached.

    Returns:
        From the arguments of the model's forward to its output's first entry, without gradient.
    """
    if recipe.distillation_weight == 0:
        return None
    dense = task.model
    if recipe.finetune == "full" or recipe.checkpoint:
        # The weights move, or a checkpoint's come: a copy alone stays what the model was.
        dense = copy.deepcopy(dense).requires_grad_(False).eval()
        if recipe.sharding == "fsdp":
            shard_model(dense, device)
        dense.to(device)
        for block in host_blocks_within(dense) if recipe.compile else ():
            block.compile(dynamic=False)
    precision = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.mixed_precision)

    @torch.no_grad()
    def teach(inputs: Mapping[str, Any]) -> Any:
        shared = dense is task.model and is_attached(task.trained)
        off = computing_all_tokens(task.trained) if shared else nullcontext()
        with off, torch.autocast(device.type, precision, enabled=precision is not None):
            return dense(**inputs)[0]

    return teach


def make_accelerator(recipe: TrainingRecipe, directory: Path) -> Any:
    """accelerate's `Accelerator` for a run in `directory`."""
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState
    from accelerate.utils import AutocastKwargs, TorchDynamoPlugin

    # accelerate keeps the first run's precision for the whole process otherwise.
    AcceleratorState._reset_state()
    directory.mkdir(parents=True, exist_ok=True)
    # At a ratio of 1 a layer computes no token, and its weights are in no graph.
    method = recipe.method
    unused = isinstance(method, DiffCRConfig) and method.max_bin == BINS
    # Where no layer skips a token, the maps of skipped ones are in none.
    unused |= isinstance(method, RoutedConfig) and method.bypass == "linear"
    # Blocks under a method are compiled by `diffcr.compile`.
    dynamo = None
    if recipe.compile and recipe.is_dense:
        allow_graph_per_shape()
        dynamo = TorchDynamoPlugin(backend="inductor", dynamic=False, use_regional_compilation=True)
    handlers: list[Any] = [DistributedDataParallelKwargs(find_unused_parameters=unused)]
    if recipe.sharding == "fsdp":
        # Its cache would keep every weight whole, in half precision, until the forward ends.
        handlers.append(AutocastKwargs(cache_enabled=False))
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision=recipe.mixed_precision,
        gradient_accumulation_steps=recipe.gradient_accumulation,
        log_with=None if recipe.tracker == "none" else recipe.tracker,
        project_dir=str(directory),
        dynamo_plugin=dynamo,
        kwargs_handlers=handlers,
    )
    if recipe.tracker != "none":
        accelerator.init_trackers(recipe.name)
    return accelerator


def make_draws(recipe: TrainingRecipe, task: Task, processes: int) -> Draws:
    """The draws of a run.

    Raises:
        DiffCRError: A micro-batch cannot be split over the processes.
    """
    micro = recipe.batch_size // recipe.gradient_accumulation
    if micro % processes:
        raise DiffCRError(
            f"a micro-batch of {micro} cannot be split over {processes} processes: "
            f"make batch_size / gradient_accumulation a multiple of {processes}"
        )
    return Draws(
        recipe.seed,
        task.order(recipe.seed),
        micro,
        recipe.gradient_accumulation,
        recipe.timestep_regions,
        recipe.caption_dropout,
    )


def attention_kernel(device: torch.device, mixed_precision: str) -> AbstractContextManager[None]:
    """Context for a training step with the kernel of attention that differentiates fastest.

    On a CPU without matrix units the fused kernel's backward is so slow in bfloat16 that it undoes
    what the linear layers gain (benchmarks/results/step-embedded-precision.json, torch 2.13).
    """
    if device.type == "cpu" and mixed_precision == "bf16":
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def save_result(task: Task, recipe: TrainingRecipe, directory: Path) -> None:
    """Write what was trained: a checkpoint for `diffcr.load`, or the dense models' weights."""
    if not recipe.is_dense:
        # A checkpoint's weights have to be saved where an adapter alone was trained on, too.
        save(task.trained, directory, weights=True if recipe.finetune == "full" else None)
        return
    with replacing_directory(directory) as written:
        if recipe.finetune == "lora":
            save_lora(task.trained, written / "adapter")
            return
        for name, part in task.parts.items():
            part.save_pretrained(str(written / name))


def check_place(place: Path, task: Task, recipe: TrainingRecipe) -> None:
    """Raises DiffCRError where `save_result` would take the place of something else."""
    if not recipe.is_dense:
        require_replaceable(place)
    elif place.exists() and not (
        place.is_dir() and {p.name for p in place.iterdir()} <= {"adapter", *task.parts}
    ):
        raise DiffCRError(f"{place} holds other files: give another directory, or move them")


def hand_back(task: Task, recipe: TrainingRecipe) -> None:
    """Undo what `prepare_models` and the run did to the models beside training them."""
    if recipe.is_routed:
        get_compressor(task.trained).end_training()
    if recipe.compile and not recipe.is_dense:
        uncompile_blocks(task.trained)
    task.model.eval()
