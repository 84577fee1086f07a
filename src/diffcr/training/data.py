"""Captioned pictures, and their latents and text embeddings, encoded once."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from tqdm.auto import tqdm

from diffcr.errors import DiffCRError
from diffcr.files import read_tensors
from diffcr.scenes import ScenesDataset
from diffcr.training.recipe import DataRecipe

_SAMPLES = 256


class CaptionedImage(Protocol):
    """A picture, RGB, and its caption."""

    @property
    def image(self) -> Image.Image: ...

    @property
    def caption(self) -> str: ...


class CaptionedImages(Protocol):
    """A data set; its `repr` identifies its contents."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> CaptionedImage: ...


@dataclass(frozen=True)
class Photograph:
    """One captioned picture of a folder."""

    image: Image.Image
    caption: str


@dataclass(frozen=True)
class ImageFolder:
    """A folder in the Hub's imagefolder convention: pictures and a `metadata.jsonl` with
    `file_name` and `text`.

    Attributes:
        path: The folder.
        resolution: Pictures are scaled and cropped in the centre to a square of this side.
        size: Number of items, all by default.

    Raises:
        DiffCRError: The folder, its metadata, a caption or a picture is missing.
    """

    path: Path
    resolution: int
    size: int | None = None
    entries: tuple[tuple[str, str], ...] = field(init=False)

    def __post_init__(self) -> None:
        entries = _read_metadata(self.path)[: self.size]
        for name, _ in entries:
            if not (self.path / name).is_file():
                raise DiffCRError(f"{self.path / name} is missing, metadata.jsonl names it")
        object.__setattr__(self, "entries", tuple(entries))

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Photograph:
        name, caption = self.entries[index]
        try:
            with Image.open(self.path / name) as opened:
                image = opened.convert("RGB")
        except (OSError, UnidentifiedImageError) as error:
            raise DiffCRError(f"{self.path / name} is not a readable picture: {error}") from error
        return Photograph(_square(image, self.resolution), caption)


def _read_metadata(folder: Path) -> list[tuple[str, str]]:
    if not folder.is_dir():
        raise DiffCRError(f"{folder} is not a folder: give 'scenes' or a folder of pictures")
    metadata = folder / "metadata.jsonl"
    if not metadata.is_file():
        raise DiffCRError(f"{metadata} is missing: one JSON object a line, file_name and text")
    entries = []
    for number, line in enumerate(metadata.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
            entries.append((str(item["file_name"]), str(item["text"])))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DiffCRError(
                f"{metadata}, line {number}: give an object with file_name and text ({error})"
            ) from error
    if not entries:
        raise DiffCRError(f"{metadata} is empty: name at least one picture")
    return entries


def _square(image: Image.Image, side: int) -> Image.Image:
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    resized = image.resize((width, height), Image.Resampling.LANCZOS)
    return resized.crop((left, top, left + side, top + side))


def open_dataset(recipe: DataRecipe, split: str = "train") -> CaptionedImages:
    """The data set that a recipe names."""
    if recipe.source == "scenes":
        return ScenesDataset(split, size=recipe.size, resolution=recipe.resolution)  # type: ignore[arg-type]
    return ImageFolder(Path(recipe.source), recipe.resolution, recipe.size)


@dataclass(frozen=True)
class EncodedDataset:
    """What the transformer sees of a data set.

    Attributes:
        latents: [M, C, h, w] float32, scaled as the pipeline scales them.
        prompt_embeds: [U, T, D] float32, of the distinct captions; the first is the empty one.
        prompt_masks: [U, T] int64.
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
    """
    from safetensors.torch import save_file

    key = _cache_key(pipe, dataset, max_sequence_length)
    path = cache_directory / f"encoded-{key}.safetensors"
    if path.exists():
        return EncodedDataset(**read_tensors(path))
    captions = {"": 0}
    caption_of, latents = [], []
    batch: list[Image.Image] = []
    for index in tqdm(range(len(dataset)), desc="encoding pictures", mininterval=1):
        item = dataset[index]
        caption_of.append(captions.setdefault(item.caption, len(captions)))
        batch.append(item.image)
        if len(batch) == batch_size or index == len(dataset) - 1:
            latents.append(_encode_images(pipe, batch))
            batch = []
    embeds, masks = _encode_captions(pipe, list(captions), max_sequence_length, batch_size)
    encoded = EncodedDataset(torch.cat(latents), embeds, masks, torch.tensor(caption_of))
    cache_directory.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({name: value.contiguous() for name, value in vars(encoded).items()}, partial)
    os.replace(partial, path)
    return encoded


@torch.no_grad()
def _encode_images(pipe: Any, images: list[Image.Image]) -> Tensor:
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    pixels = pixels.permute(0, 3, 1, 2).to(pipe.vae.device, pipe.vae.dtype) / 127.5 - 1
    latents = pipe.vae.encode(pixels).latent_dist.mode() * pipe.vae.config.scaling_factor
    result: Tensor = latents.float().cpu()
    return result


@torch.no_grad()
def _encode_captions(
    pipe: Any, captions: list[str], max_sequence_length: int, batch_size: int
) -> tuple[Tensor, Tensor]:
    embeds, masks = [], []
    starts = range(0, len(captions), batch_size)
    for start in tqdm(starts, desc="encoding captions", mininterval=1):
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


def _cache_key(pipe: Any, dataset: CaptionedImages, max_sequence_length: int) -> str:
    digest = hashlib.sha256(f"{dataset!r} {max_sequence_length}".encode())
    for module in (pipe.vae, pipe.text_encoder):
        digest.update(f"{type(module).__name__} {module.dtype}".encode())
        for parameter in module.parameters():
            # Values, not a sum, whose last digits would depend on the number of threads.
            sampled = parameter.detach().flatten()[:: parameter.numel() // _SAMPLES + 1]
            digest.update(sampled.double().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
