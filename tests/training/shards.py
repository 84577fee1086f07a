"""Tiny pictures and their shards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from diffcr.training.data.part_encoder import ShardSettings
from diffcr.training.data.sharding import begin_shards, encode_shards, finish_shards
from diffcr.training.data.shards import (
    ShardedDataset,
)
from diffcr.training.data.sizes import PictureSize
from diffcr.training.data.sources import open_source
from tests.pipelines import tiny_pixart_pipeline

SQUARE = ShardSettings((PictureSize(32, 32),), 48, shard_items=4, batch_size=2)


WIDE = replace(SQUARE, sizes=(PictureSize(64, 16), PictureSize(32, 32), PictureSize(16, 64)))


PICTURES = 11


def picture(index: int) -> Image.Image:
    random = np.random.default_rng(index)
    size = [(40, 32), (20, 64), (64, 16), (32, 32)][index % 4]
    return Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8))


def encode(
    source: object, directory: Path, settings: ShardSettings = SQUARE, processes: int = 1
) -> ShardedDataset:
    pipe, opened = tiny_pixart_pipeline(), open_source(str(source), 32, settings.shard_items)
    begin_shards(directory, {"source": str(source)})
    for process in range(processes):
        encode_shards(pipe, opened, directory, settings, process, processes)
    finish_shards(pipe, directory, opened.units, settings, {"resolution": 32})
    return ShardedDataset(directory, window=2)


def all_of(data: Any, size: int = PICTURES) -> Any:
    return data.batch(torch.arange(size), torch.zeros(size, dtype=torch.bool))
