"""Fine-tuning: recipes, data, the loss, the loop, checkpoints."""

from diffcr.training.data.encoding import EncodedDataset, encode_dataset
from diffcr.training.data.pictures import ImageFolder, open_dataset
from diffcr.training.loop import TrainingResult, train
from diffcr.training.recipe import TrainingRecipe, load_recipe

__all__ = [
    "EncodedDataset",
    "ImageFolder",
    "TrainingRecipe",
    "TrainingResult",
    "encode_dataset",
    "load_recipe",
    "open_dataset",
    "train",
]
