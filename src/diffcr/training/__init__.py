"""Fine-tuning: recipes, data, the loss, the loop, checkpoints."""

from diffcr.training.data.encoding import EncodedDataset, encode_dataset
from diffcr.training.data.pictures import ImageFolder, open_dataset
from diffcr.training.data.shards import ShardedDataset
from diffcr.training.job import train
from diffcr.training.recipe import TrainingRecipe, load_recipe
from diffcr.training.run_directory import TrainingResult

__all__ = [
    "EncodedDataset",
    "ImageFolder",
    "ShardedDataset",
    "TrainingRecipe",
    "TrainingResult",
    "encode_dataset",
    "load_recipe",
    "open_dataset",
    "train",
]
