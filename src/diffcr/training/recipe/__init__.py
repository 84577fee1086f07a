"""Recipes: what a training run does, from a file or made in Python."""

from diffcr.training.recipe.file import find_recipe, load_recipe, recipe_from_dict
from diffcr.training.recipe.recipe import TrainingRecipe
from diffcr.training.recipe.sections import (
    DataRecipe,
    InpaintingRecipe,
    OptimizerRecipe,
    RatioLossRecipe,
)

__all__ = [
    "DataRecipe",
    "InpaintingRecipe",
    "OptimizerRecipe",
    "RatioLossRecipe",
    "TrainingRecipe",
    "find_recipe",
    "load_recipe",
    "recipe_from_dict",
]
