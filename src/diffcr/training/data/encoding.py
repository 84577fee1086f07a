"""Latents and text embeddings of captioned pictures, encoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from warnings import warn

import torch
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm
from transformers.utils import logging as transformers_logging

from diffcr.core.images import image_tensor
from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.files import read_cache, write_tensors
from diffcr.training.data.encoded import EncodedBatch
from diffcr.training.data.order import ItemOrder, ShuffledItems
from diffcr.training.data.pictures import CaptionedImages, read_batches

_SAMPLES = 256
_SAMPLES_OF_DATA = 64


@dataclass(frozen=True)
class EncodedDataset:
    """What the transformer sees of M pictures with U distinct captions.

    Attributes:
        latents: [M, C, h, w] float32, scaled as the pipeline scales them.
        prompt_embeds: [U, T, D] float32, of the distinct captions; the first is the empty one.
        prompt_masks: [U, T] int64, 1 where there is a token.
        caption_of: [M] int64, rows of `prompt_embeds`.
    """

    latents: Tensor
    prompt_embeds: Tensor
    prompt_masks: Tensor
    caption_of: Tensor

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w)."""
        channels, height, width = self.latents.shape[1:]
        return channels, height, width

    def captions(self, indices: Tensor, drop: Tensor) -> Tensor:
        """Rows of `prompt_embeds` for items, [B]; the empty caption where `drop` [B]."""
        return self.caption_of[indices].masked_fill(drop, 0)

    def batch(self, items: Tensor, drop: Tensor) -> EncodedBatch:
        """As in `EncodedPictures`."""
        rows = self.captions(items, drop)
        return EncodedBatch(self.latents[items], self.prompt_embeds[rows], self.prompt_masks[rows])

    def order(self, seed: int) -> ItemOrder:
        """As in `EncodedPictures`."""
        return ShuffledItems(seed, len(self), self.latent_shape)

    def identity(self) -> Iterator[bytes]:
        """As in `EncodedPictures`: which item has which caption."""
        yield str(tuple(self.latents.shape)).encode()
        yield self.caption_of.numpy().tobytes()
        yield self.prompt_masks.numpy().tobytes()

    def sampled_values(self) -> list[float]:
        """As in `EncodedPictures`."""
        return [*sample_values(self.latents), *sample_values(self.prompt_embeds)]


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
        pipe: A pipeline with `vae`, `text_encoder` and `encode_prompt`.
        dataset: Pictures of one size.
        cache_directory: Made where it is missing.
        max_sequence_length: Of the captions, in tokens.
        batch_size: Pictures, or captions, per call of a model.
    """
    key = _cache_key(pipe, dataset, max_sequence_length)
    path = cache_directory / f"encoded-{key}.safetensors"
    if (known := read_cache(path, EncodedDataset)) is not None:
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
    embeds, masks = encode_captions(pipe, list(captions), max_sequence_length, batch_size, shown)
    encoded = EncodedDataset(torch.cat(latents), embeds, masks, torch.tensor(caption_of))
    write_tensors(path, vars(encoded))
    return encoded


@torch.no_grad()
def encode_images(pipe: Any, images: Sequence[Image.Image]) -> Tensor:
    """Latents [B, C, h, w] of pictures of one size, scaled as the pipeline scales them, on the
    autoencoder's device and in its dtype.

    Raises:
        DiffCRError: They are not finite, as a half-precision autoencoder may make them.
    """
    pixels = image_tensor(images).to(pipe.vae.device, pipe.vae.dtype)
    latents: Tensor = pipe.vae.encode(pixels).latent_dist.mode() * pipe.vae.config.scaling_factor
    if not bool(latents.isfinite().all()):
        raise DiffCRError(
            f"the autoencoder's latents of a picture are not finite in {pipe.vae.dtype}: give it a "
            "wider dtype"
        )
    return latents


@torch.no_grad()
def encode_captions(
    pipe: Any,
    captions: list[str],
    max_sequence_length: int,
    batch_size: int,
    starts: Iterable[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Embeddings [U, T, D] float32 and masks [U, T] int64 of captions, on the CPU; T is the length
    of the longest.

    Args:
        pipe: A pipeline with `text_encoder` and `encode_prompt`.
        captions: U of them, at least one.
        max_sequence_length: Tokens that a caption is cut to.
        batch_size: Captions per call.
        starts: First captions of the calls, for a progress bar.
    """
    embeds, masks = [], []
    for start in range(0, len(captions), batch_size) if starts is None else starts:
        with _quiet(diffusers_logging), _quiet(transformers_logging):
            found = pipe.encode_prompt(
                captions[start : start + batch_size],
                do_classifier_free_guidance=False,
                device=pipe.text_encoder.device,
                max_sequence_length=max_sequence_length,
            )
        embeds.append(found[0].float().cpu())
        masks.append(found[1].long().cpu())
    mask = torch.cat(masks)
    longest = int(mask.sum(1).max())
    return torch.cat(embeds)[:, :longest].contiguous(), mask[:, :longest].contiguous()


def _warn_of_long(pipe: Any, captions: list[str], max_sequence_length: int) -> None:
    """Say how many captions are cut, once: pipelines print all that they cut from every batch."""
    with _quiet(transformers_logging):
        lengths = [len(pipe.tokenizer(caption).input_ids) for caption in captions]
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
    digest.update(str(pipe.vae.config.scaling_factor).encode())
    # Pictures that are made when they are asked for change with the code that makes them.
    digest.update(dataset[0].image.tobytes())
    for module in (pipe.vae, pipe.text_encoder):
        for values in weight_samples(module):
            digest.update(values)
    return digest.hexdigest()[:16]


def weight_samples(module: Any) -> Iterator[bytes]:
    """What tells a model's weights from another's: its class, and values of every parameter."""
    yield f"{type(module).__name__} {module.dtype}".encode()
    for parameter in module.parameters():
        # Values, not a sum, whose last digits would depend on the number of threads.
        sampled = parameter.detach().flatten()[:: parameter.numel() // _SAMPLES + 1]
        yield sampled.double().cpu().numpy().tobytes()
