"""A recipe from beginning to end: pipeline, data, encoding, training."""

from __future__ import annotations

from pathlib import Path

from diffcr.pipelines import load_pipeline
from diffcr.training.data import encode_dataset, open_dataset
from diffcr.training.loop import TrainingResult, train
from diffcr.training.recipe import TrainingRecipe


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
    from diffcr.pretrained import default_pipeline_path

    output = Path(output_directory)
    dataset = open_dataset(recipe.data)
    pipe = load_pipeline(recipe.model or default_pipeline_path())
    pipe.set_progress_bar_config(disable=True)
    encoded = encode_dataset(
        pipe, dataset, output.parent / "encoded", recipe.data.max_sequence_length
    )
    return train(recipe, pipe, encoded, output, resume)
