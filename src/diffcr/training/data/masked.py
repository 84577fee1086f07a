"""Pictures with masks, and what the context encoder sees of them, encoded once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from diffcr.files import read_cache, write_tensors
from diffcr.hosts.latents import encode_images
from diffcr.inpainting.images.edits import GREY
from diffcr.inpainting.images.masks import mask_coverage, masked_tokens
from diffcr.inpainting.images.random_masks import draw_mask, grow_region
from diffcr.training.data.encoding import EncodedDataset, encode_dataset
from diffcr.training.data.pictures import CaptionedImages

_KEYED = 8


@dataclass(frozen=True)
class MaskedDataset:
    """M masked pictures; several masks may be of the same picture.

    Attributes:
        pictures: As they are without masks.
        picture_of: [M] int64, items of `pictures`.
        visible: [M, C, h, w] float32, latents of the pictures with what is masked grey.
        coverage: [M, 1, h, w] float32, share of each latent's pixels that are masked.
        tokens: [M, N] bool, the masked tokens of the decoder.
    """

    pictures: EncodedDataset
    picture_of: Tensor
    visible: Tensor
    coverage: Tensor
    tokens: Tensor

    def __len__(self) -> int:
        return len(self.picture_of)

    @property
    def groups(self) -> tuple[Tensor, ...]:
        """Items with equally many masked tokens, [m] int64 each, the fewest first."""
        counts = self.tokens.sum(dim=1)
        return tuple((counts == count).nonzero().flatten() for count in counts.unique())

    def token_indices(self, items: Tensor) -> Tensor:
        """Places of the masked tokens of items of one group, [B, K] int64."""
        return self.tokens[items].nonzero()[:, 1].view(len(items), -1)


def encode_masked(
    pipe: Any,
    dataset: CaptionedImages,
    cache_directory: Path,
    masks_per_picture: int,
    max_sequence_length: int = 300,
    batch_size: int = 32,
) -> MaskedDataset:
    """Draw masks and encode pictures with them, once.

    Args:
        pipe: A `LazyInpaintPipeline`, whose own autoencoder and text encoder are used.
        dataset: Pictures of the pipeline's working size; a scene's own mask says where objects are.
        cache_directory: The results are kept there; made where it is missing.
        masks_per_picture: 1 or more. Masks of a picture are functions of its number alone.
        max_sequence_length: Of the captions, in tokens.
        batch_size: Pictures per call of the autoencoder.
    """
    pictures = encode_dataset(pipe, dataset, cache_directory, max_sequence_length, batch_size)
    key = _cache_key(pipe, pictures, dataset, masks_per_picture)
    path = cache_directory / f"masked-{key}.safetensors"
    if (known := read_cache(path, partial(MaskedDataset, pictures))) is not None:
        return known
    total = len(dataset) * masks_per_picture
    items = (_masked_item(pipe, dataset, i, masks_per_picture) for i in range(len(dataset)))
    drawn = iter(tqdm(chain.from_iterable(items), "encoding masks", total))
    visible, coverage, tokens = [], [], []
    while batch := list(islice(drawn, batch_size)):
        visible.append(encode_images(pipe, [masked.visible for masked in batch]).float().cpu())
        coverage += [masked.coverage for masked in batch]
        tokens += [masked.tokens for masked in batch]
    values = {
        "picture_of": torch.arange(len(dataset)).repeat_interleave(masks_per_picture),
        "visible": torch.cat(visible),
        "coverage": torch.cat(coverage),
        "tokens": torch.cat(tokens),
    }
    write_tensors(path, values)
    return MaskedDataset(pictures, **values)


@dataclass(frozen=True)
class _MaskedPicture:
    """A picture with what is masked grey; the latents' coverage [1, 1, h, w], tokens [1, N]."""

    visible: Image.Image
    coverage: Tensor
    tokens: Tensor


def _masked_item(
    pipe: Any, dataset: CaptionedImages, item: int, masks_per_picture: int
) -> Iterator[_MaskedPicture]:
    given = dataset[item]
    pixels = np.asarray(given.image.convert("RGB"))
    for number in range(masks_per_picture):
        random = np.random.default_rng(np.random.SeedSequence([item, number]))
        mask = draw_mask(random, len(pixels), getattr(given, "mask", None))
        region = grow_region(mask, pipe.pixels_per_token)
        visible = np.where(region[..., None], np.uint8(GREY), pixels)
        yield _MaskedPicture(
            Image.fromarray(visible),
            mask_coverage(region, pipe.vae_scale_factor),
            masked_tokens(region, pipe.pixels_per_token).flatten()[None],
        )


def _cache_key(pipe: Any, pictures: EncodedDataset, dataset: CaptionedImages, masks: int) -> str:
    digest = hashlib.sha256(f"{dataset!r} {masks} {pipe.pixels_per_token}".encode())
    digest.update(pictures.latents[:1].numpy().tobytes())
    # Masks change with the code that draws them.
    for item in range(min(len(dataset), _KEYED)):
        for masked in _masked_item(pipe, dataset, item, masks):
            digest.update(masked.visible.tobytes())
            digest.update(masked.coverage.numpy().tobytes() + masked.tokens.numpy().tobytes())
    return digest.hexdigest()[:16]
