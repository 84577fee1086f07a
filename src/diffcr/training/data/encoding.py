"""Latents and text embeddings of captioned pictures, encoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from warnings import warn

import torch
from diffusers.utils import logging as diffusers_logging
from torch import Tensor
from tqdm.auto import tqdm
from transformers.utils import logging as transformers_logging

from diffcr.errors import DiffCRWarning
from diffcr.files import read_cache, write_tensors
from diffcr.hosts import family_of, find_transformer
from diffcr.hosts.latents import encode_images
from diffcr.hosts.loading import longest_tokenizer
from diffcr.hosts.pipelines.prompt import Prompt
from diffcr.training.data.encoded import EncodedBatch, prompt_of, prompt_tensors
from diffcr.training.data.order import ItemOrder, ShuffledItems
from diffcr.training.data.pictures import CaptionedImages, read_batches

_SAMPLES = 256
_SAMPLES_OF_DATA = 64
_SCALING = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")


@dataclass(frozen=True)
class EncodedDataset:
    """What the transformer sees of M pictures with U distinct captions.

    Attributes:
        latents: [M, C, h, w] or [M, C, f, h, w] float32, scaled as the pipeline scales them.
        prompts: Of the U distinct captions, float32; the first is the empty one.
        caption_of: [M] int64, rows of `prompts`.
    """

    latents: Tensor
    prompts: Prompt
    caption_of: Tensor

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(C, h, w) or (C, f, h, w)."""
        return tuple(self.latents.shape[1:])

    def captions(self, indices: Tensor, drop: Tensor) -> Tensor:
        """Rows of `prompts` for items, [B]; the empty caption where `drop` [B]."""
        return self.caption_of[indices].masked_fill(drop, 0)

    def batch(self, items: Tensor, drop: Tensor) -> EncodedBatch:
        """As in `EncodedPictures`."""
        return EncodedBatch(self.latents[items], self.prompts[self.captions(items, drop)])

    def order(self, seed: int) -> ItemOrder:
        """As in `EncodedPictures`."""
        return ShuffledItems(seed, len(self), self.latent_shape)

    def identity(self) -> Iterator[bytes]:
        """As in `EncodedPictures`: which item has which caption."""
        yield str(tuple(self.latents.shape)).encode()
        yield self.caption_of.numpy().tobytes()
        for tensor in self.prompts.tensors().values():
            if not tensor.is_floating_point():
                yield tensor.numpy().tobytes()

    def sampled_values(self) -> list[float]:
        """As in `EncodedPictures`."""
        tensors = (self.latents, *self.prompts.tensors().values())
        floats = (tensor for tensor in tensors if tensor.is_floating_point())
        return [value for tensor in floats for value in sample_values(tensor)]

    def tensors(self) -> dict[str, Tensor]:
        """By name, as they are kept in a file."""
        prompts = prompt_tensors(self.prompts)
        return {"latents": self.latents, **prompts, "caption_of": self.caption_of}

    @classmethod
    def of_tensors(
        cls, latents: Tensor, prompt_embeds: Tensor, caption_of: Tensor, **prompts: Tensor
    ) -> EncodedDataset:
        """From what `tensors` gives."""
        prompt = prompt_of({"prompt_embeds": prompt_embeds, **prompts})
        return cls(latents, prompt, caption_of)


def sample_values(tensor: Tensor) -> list[float]:
    """At most 64 values of a tensor, evenly spread."""
    step = tensor.numel() // _SAMPLES_OF_DATA + 1
    values: list[float] = tensor.flatten()[::step].float().tolist()
    return values


def encode_dataset(
    pipe: Any,
    dataset: CaptionedImages,
    cache_directory: Path,
    max_sequence_length: int = 300,
    batch_size: int = 32,
) -> EncodedDataset:
    """Encode pictures and captions with the pipeline's own autoencoder and text encoder, once.

    The result is kept in `cache_directory` under a name that depends on the models' weights, the
    data set and the settings.

    Args:
        pipe: A pipeline with an autoencoder and text encoders, whose family can be trained.
        dataset: Pictures of one size.
        cache_directory: Made where it is missing.
        max_sequence_length: Of the captions, in tokens.
        batch_size: Pictures, or captions, per call of a model.
    """
    key = _cache_key(pipe, dataset, max_sequence_length)
    path = cache_directory / f"encoded-{key}.safetensors"
    if (known := read_cache(path, EncodedDataset.of_tensors)) is not None:
        return known
    captions = {"": 0}
    caption_of, latents = [], []
    with tqdm(total=len(dataset), desc="encoding pictures", mininterval=1) as progress:
        for items in read_batches(dataset, batch_size):
            caption_of += [captions.setdefault(item.caption, len(captions)) for item in items]
            latents.append(encode_images(pipe, [item.image for item in items]).float().cpu())
            progress.update(len(items))
    _warn_of_long(pipe, list(captions), max_sequence_length)
    starts = range(0, len(captions), batch_size)
    shown = tqdm(starts, desc="encoding captions", mininterval=1)
    prompts = encode_captions(pipe, list(captions), max_sequence_length, batch_size, shown)
    encoded = EncodedDataset(torch.cat(latents), prompts, torch.tensor(caption_of))
    write_tensors(path, encoded.tensors())
    return encoded


@torch.no_grad()
def encode_captions(
    pipe: Any,
    captions: list[str],
    max_sequence_length: int,
    batch_size: int,
    starts: Iterable[int] | None = None,
) -> Prompt:
    """Captions by the pipeline's own encoders, on the CPU: floats in float32, masks in int64, no
    longer than the longest caption.

    Args:
        pipe: A pipeline whose family can be trained.
        captions: At least one.
        max_sequence_length: Tokens that a caption is cut to.
        batch_size: Captions per call.
        starts: First captions of the calls, for a progress bar.
    """
    encode = family_of(find_transformer(pipe)).call.encode_prompt
    prompts = []
    for start in range(0, len(captions), batch_size) if starts is None else starts:
        with _quiet(diffusers_logging), _quiet(transformers_logging):
            found = encode(pipe, captions[start : start + batch_size], max_sequence_length)
        kept = found.to("cpu", torch.float32)
        prompts.append(replace(kept, mask=None if kept.mask is None else kept.mask.long()))
    return Prompt.concatenated(prompts)


def _warn_of_long(pipe: Any, captions: list[str], max_sequence_length: int) -> None:
    """Say how many captions are cut, once: pipelines print all that they cut from every batch."""
    tokenizer = longest_tokenizer(pipe)
    if tokenizer is None:
        return
    with _quiet(transformers_logging):
        lengths = [len(tokenizer(caption).input_ids) for caption in captions]
    longer = sum(length > max_sequence_length for length in lengths)
    if longer:
        warn(
            f"{longer} of {len(captions)} captions are cut to max_sequence_length "
            f"({max_sequence_length} tokens); the longest has {max(lengths)}",
            DiffCRWarning,
            stacklevel=4,
        )


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Within the context a library of models logs errors alone."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _cache_key(pipe: Any, dataset: CaptionedImages, max_sequence_length: int) -> str:
    digest = hashlib.sha256(f"{dataset!r} {max_sequence_length}".encode())
    digest.update(scaling_of(pipe).encode())
    # Pictures that are made when they are asked for change with the code that makes them.
    digest.update(dataset[0].image.tobytes())
    for module in encoders(pipe):
        for values in weight_samples(module):
            digest.update(values)
    return digest.hexdigest()[:16]


def scaling_of(pipe: Any) -> str:
    """The numbers that the pipeline scales latents with."""
    values = (pipe.vae.config.get(name) for name in _SCALING)
    return " ".join(str(value) for value in values if value is not None)


def encoders(pipe: Any) -> list[Any]:
    """The models that data are encoded with: the autoencoder, then those of texts."""
    of_texts = (part for name, part in pipe.components.items() if name.startswith("text_encoder"))
    return [pipe.vae, *(part for part in of_texts if part is not None)]


def weight_samples(module: Any) -> Iterator[bytes]:
    """What tells a model's weights from another's: its class, and values of every parameter and of
    every buffer of its files, such as the statistics that FLUX.2's latents are scaled with."""
    yield f"{type(module).__name__} {module.dtype}".encode()
    buffers = dict(module.named_buffers())
    kept = (tensor for name, tensor in module.state_dict().items() if name in buffers)
    for tensor in (*module.parameters(), *kept):
        # Values, not a sum, whose last digits would depend on the number of threads.
        sampled = tensor.detach().flatten()[:: tensor.numel() // _SAMPLES + 1]
        yield sampled.double().cpu().numpy().tobytes()
