"""A recipe from beginning to end: `run_recipe` opens and encodes, `train` trains."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from typing import Any
from warnings import warn

import torch

from diffcr.checkpoint.stored import resolve_checkpoint
from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.hosts import family_of, find_transformer
from diffcr.hosts.loading import load_pipeline, read_pipeline, size_multiple
from diffcr.inpainting.opening import load_inpainting_pipeline
from diffcr.methods.diffcr.config import DiffCRConfig
from diffcr.ownership import own_directory
from diffcr.pretrained import default_pipeline_path, load_default_inpainting
from diffcr.training.data.encoded import EncodedPictures
from diffcr.training.data.encoding import EncodedDataset, encode_dataset, encoders
from diffcr.training.data.masked import MaskedDataset, encode_masked
from diffcr.training.data.pictures import open_dataset
from diffcr.training.data.shards import ShardedDataset, holds_shards
from diffcr.training.loop import Trainer
from diffcr.training.objectives import objective_of
from diffcr.training.recipe import TrainingRecipe
from diffcr.training.run_directory import TrainingResult
from diffcr.training.task import make_task


def run_recipe(
    recipe: TrainingRecipe, output_directory: str | Path, resume: bool = True
) -> TrainingResult:
    """Do what a recipe says.

    Args:
        recipe: With `model` empty for the embedded default.
        output_directory: Of the run; encoded data is cached beside it, in `encoded/`.
        resume: Go on from the last checkpoint there.

    Raises:
        DiffCRError: The model, the data or the recipe is wrong.
    """
    from accelerate import PartialState

    output = Path(output_directory)
    on_gpu = torch.cuda.is_available()
    if recipe.mixed_precision == "fp16" and not on_gpu:
        raise DiffCRError("mixed_precision is 'fp16', which needs a GPU: give 'bf16' or 'no'")
    _check_start(recipe)
    if holds_shards(recipe.data.source):
        data = open_shards(recipe)
        return train(recipe, _open_denoiser(recipe, data), data, output, resume)
    dataset = open_dataset(recipe.data)
    pipe = _open_pipeline(recipe)
    pipe.set_progress_bar_config(disable=True)
    cache, length = output.parent / "encoded", recipe.data.max_sequence_length
    # The first process encodes, the others find what it wrote, however long it takes.
    with PartialState(cpu=not on_gpu, timeout=timedelta(days=7)).main_process_first():
        encoded: EncodedDataset | MaskedDataset
        if recipe.inpainting is None:
            encoded = encode_dataset(pipe, dataset, cache, length)
        else:
            masks = recipe.inpainting.masks_per_picture
            encoded = encode_masked(pipe, dataset, cache, masks, length)
    # What has encoded takes no memory beside what is trained.
    for used in encoders(pipe):
        for name in [name for name, part in pipe.components.items() if part is used]:
            setattr(pipe, name, None)
    return train(recipe, pipe, encoded, output, resume)


def train(
    recipe: TrainingRecipe,
    pipe: Any,
    dataset: EncodedPictures | MaskedDataset,
    output_directory: str | Path,
    resume: bool = True,
) -> TrainingResult:
    """Train a pipeline's transformer, or what the recipe says of a `LazyInpaintPipeline`, in place.

    Args:
        recipe: What to do.
        pipe: A diffusers pipeline; its scheduler says what the model predicts.
        dataset: Encoded with the same pipeline, in memory or in shards, with masks for inpainting.
        output_directory: For `checkpoints/`, `by-products/`, `final/`, `history.jsonl` and
            `training_record.json`.
        resume: Go on from the last checkpoint there; without, what is there is set aside in
            `earlier-1/`.

    Raises:
        DiffCRError: The recipe does not fit the model, the processes or the directory, another run
            writes into it, or training diverges.
    """
    from accelerate import PartialState

    _check_start(recipe)
    task = make_task(recipe, pipe, dataset)
    objective = objective_of(pipe.scheduler, recipe.largest_loss_weight, recipe.timestep_density)
    directory = Path(output_directory)
    first = PartialState(cpu=not torch.cuda.is_available()).is_main_process
    with own_directory(directory, ("checkpoints", "by-products"), first):
        return Trainer(recipe, task, objective, directory, resume).run()


def _check_start(recipe: TrainingRecipe) -> None:
    """What can be said of a recipe's checkpoint before anything long has begun.

    Raises:
        DiffCRError: There is none where one is needed, or it cannot be had.
    """
    if recipe.checkpoint:
        resolve_checkpoint(recipe.checkpoint)
    elif isinstance(recipe.method, DiffCRConfig):
        if recipe.ratio_loss.settle == 0:
            raise DiffCRError(
                "ratio_loss.settle is 0 without a checkpoint, so every ratio would stay at 0: "
                "give the checkpoint to go on from"
            )
        _warn_of_few_steps(recipe, recipe.method.target_compression_ratio)


def _warn_of_few_steps(recipe: TrainingRecipe, target: float) -> None:
    """Say where ratios cannot come to their target: a step of AdamW moves one by its rate at most,
    about."""
    rate = recipe.optimizer.ratio_learning_rate
    reach = rate * math.ceil(recipe.steps * recipe.ratio_loss.settle)
    if reach < target:
        warn(
            f"{recipe.steps} steps with optimizer.ratio_learning_rate {rate:g} bring the mean "
            f"compression ratio to {reach:.1%} at most, not to {target:.1%}",
            DiffCRWarning,
            stacklevel=4,
        )


def open_shards(recipe: TrainingRecipe) -> ShardedDataset:
    """The encoded pictures that a recipe's `data.source` names.

    Raises:
        DiffCRError: They are not complete, or the recipe wants other ones.
    """
    settings, data = recipe.data, ShardedDataset(recipe.data.source, recipe.data.shuffle_window)
    if recipe.inpainting is not None or settings.size is not None:
        raise DiffCRError(
            f"data.source {settings.source} is encoded, which goes neither with data.size nor with "
            "inpainting: give the pictures themselves"
        )
    for name in ("resolution", "max_sequence_length"):
        if getattr(settings, name) != data.settings.get(name):
            raise DiffCRError(
                f"data.{name} is {getattr(settings, name)}, {settings.source} was encoded with "
                f"{data.settings.get(name)}: give that"
            )
    return data


def _open_denoiser(recipe: TrainingRecipe, data: ShardedDataset) -> Any:
    """The pipeline without what encodes, which is not needed again."""
    from diffusers import DiffusionPipeline

    model = recipe.model or default_pipeline_path()
    named = DiffusionPipeline.load_config(str(model))
    left_out = {
        name: None
        for name, kind in named.items()
        if isinstance(kind, list | tuple) and not name.startswith(("transformer", "scheduler"))
    }
    pipe = read_pipeline(DiffusionPipeline, model, **left_out)
    transformer: Any = find_transformer(pipe)
    encoded, *_, rows, columns = data.shards[0].latent_shape
    channels = family_of(transformer).call.latent_shape(transformer.config, rows, columns)[0]
    if channels != encoded:
        raise DiffCRError(
            f"{recipe.data.source} holds latents of {encoded} channels, {model} takes {channels}: "
            "encode with this pipeline"
        )
    return pipe


def _open_pipeline(recipe: TrainingRecipe) -> Any:
    if recipe.inpainting is None:
        pipe = load_pipeline(recipe.model or default_pipeline_path())
    elif recipe.model:
        pipe = load_inpainting_pipeline(recipe.model)
    else:
        pipe = load_default_inpainting()
    _check_resolution(pipe, recipe)
    return pipe


def _check_resolution(pipe: Any, recipe: TrainingRecipe) -> None:
    multiple, resolution = size_multiple(pipe), recipe.data.resolution
    if recipe.inpainting is not None and resolution != pipe.working_side:
        side = pipe.working_side
        raise DiffCRError(f"data.resolution is {resolution}, the pipeline works at {side}: give it")
    if resolution % multiple:
        raise DiffCRError(
            f"data.resolution is {resolution}: this pipeline needs a multiple of {multiple}"
        )
