"""Captioned pictures, encoded once."""

from diffcr.training.data.encoding import EncodedDataset, encode_dataset
from diffcr.training.data.pictures import ImageFolder, open_dataset

__all__ = ["EncodedDataset", "ImageFolder", "encode_dataset", "open_dataset"]
