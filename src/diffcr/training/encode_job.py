"""Encoding a data set from beginning to end, in one process or in several of torchrun's."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from math import prod
from pathlib import Path
from typing import Annotated, Any

import torch

from diffcr.errors import DiffCRError
from diffcr.hosts import family_of, find_transformer
from diffcr.hosts.loading import load_pipeline, size_multiple, text_tokens, vae_scale
from diffcr.hosts.sampling import latent_size
from diffcr.ownership import own_directory
from diffcr.pretrained import default_pipeline_path
from diffcr.training.data.encoding import encoders, scaling_of, weight_samples
from diffcr.training.data.part_encoder import ShardSettings
from diffcr.training.data.sharding import begin_shards, encode_shards, finish_shards
from diffcr.training.data.shards import ShardedDataset
from diffcr.training.data.sizes import sizes_of_area
from diffcr.training.data.sources import open_source
from diffcr.validation import AT_LEAST_1, between, check_fields

_SHARD_BYTES = 256 * 2**20
_MOST_ITEMS = 4096


@dataclass(frozen=True)
class EncodingRequest:
    """What is encoded, and how.

    Attributes:
        source: As `open_source` takes it.
        model: Pipeline directory or Hub id, the embedded default if empty.
        resolution: Side of the square, or of the square of the same area; the pipeline's own by
            default.
        largest_ratio: Of a picture's longer side to the shorter one; 1 makes all of them square.
        max_sequence_length: Tokens that a caption is cut to; the pipeline's own by default.
        shard_items: Pictures that a shard holds at most; what makes about 256 MiB by default.
        batch_size: Pictures, or captions, per call of a model.

    Raises:
        DiffCRError: A number is outside its range.
    """

    source: str
    model: str = ""
    resolution: Annotated[int | None, between(1, 8192)] = None
    largest_ratio: Annotated[float, AT_LEAST_1] = 1.0
    max_sequence_length: Annotated[int | None, between(1, 8192)] = None
    shard_items: Annotated[int | None, between(1, 10**9)] = None
    batch_size: Annotated[int, between(1, 65536)] = 32

    def __post_init__(self) -> None:
        check_fields(self)


def run_encoding(request: EncodingRequest, directory: Path) -> ShardedDataset:
    """Encode a source into shards; the same call goes on where an earlier one was interrupted.

    Args:
        request: What, and how.
        directory: Of the shards.

    Raises:
        DiffCRError: The model, the source or the directory is wrong.
    """
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=7))
    pipe = load_pipeline(request.model or default_pipeline_path())
    pipe.set_progress_bar_config(disable=True)
    settings = _settings(pipe, request)
    square = max(size.height for size in settings.sizes if size.height == size.width)
    source = open_source(request.source, square, settings.shard_items)
    described = {
        "model": request.model or "the embedded pipeline",
        "source": request.source,
        "resolution": square,
        "largest_ratio": request.largest_ratio,
        "max_sequence_length": settings.max_sequence_length,
    }
    with own_directory(directory, ("shards", "parts"), state.is_main_process):
        if state.is_main_process:
            details = {
                "contents": repr(source),
                "encoders": _digest(pipe),
                "shard_items": settings.shard_items,
                "batch_size": settings.batch_size,
            }
            begin_shards(directory, described | details)
        state.wait_for_everyone()
        encode_shards(pipe, source, directory, settings, state.process_index, state.num_processes)
        state.wait_for_everyone()
        if state.is_main_process:
            finish_shards(pipe, directory, source.units, settings, described)
        state.wait_for_everyone()
    return ShardedDataset(directory)


def _settings(pipe: Any, request: EncodingRequest) -> ShardSettings:
    multiple = size_multiple(pipe)
    resolution = request.resolution or latent_size(pipe).rows * vae_scale(pipe)
    if resolution % multiple:
        raise DiffCRError(
            f"resolution is {resolution}: this pipeline needs a multiple of {multiple}"
        )
    length = request.max_sequence_length or text_tokens(pipe)
    return ShardSettings(
        sizes_of_area(resolution, multiple, request.largest_ratio),
        length,
        request.shard_items or _shard_items(pipe, resolution, length),
        request.batch_size,
    )


def _shard_items(pipe: Any, resolution: int, length: int) -> int:
    """Pictures that make a shard of the usual size, were all captions as long as they may be."""
    transformer: Any = find_transformer(pipe)
    family, side = family_of(transformer), resolution // vae_scale(pipe)
    shape = family.call.latent_shape(transformer.config, side, side)
    prompt = family.call.blank_prompt(transformer.config, length).tensors().values()
    latents = prod(shape) * pipe.vae.dtype.itemsize
    text = sum(tensor.numel() for tensor in prompt) * encoders(pipe)[-1].dtype.itemsize
    return int(min(max(1, _SHARD_BYTES // (latents + text)), _MOST_ITEMS))


def _digest(pipe: Any) -> str:
    digest = hashlib.sha256(scaling_of(pipe).encode())
    for module in encoders(pipe):
        for values in weight_samples(module):
            digest.update(values)
    return digest.hexdigest()[:16]
