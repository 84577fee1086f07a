"""A recipe from beginning to end: pipeline, data, encoding, training."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from diffcr.errors import DiffCRError
from diffcr.hosts.loading import load_pipeline, size_multiple
from diffcr.inpainting.opening import load_inpainting_pipeline
from diffcr.pretrained import default_pipeline_path, load_default_inpainting
from diffcr.training.data.encoding import EncodedDataset, encode_dataset
from diffcr.training.data.masked import MaskedDataset, encode_masked
from diffcr.training.data.pictures import open_dataset
from diffcr.training.loop import TrainingResult, train
from diffcr.training.recipe import TrainingRecipe
from diffcr.training.run import check_start


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
    check_start(recipe)
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
    return train(recipe, pipe, encoded, output, resume)


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
