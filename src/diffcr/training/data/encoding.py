"""Captioned pictures, and their latents and text embeddings, encoded once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from tqdm.auto import tqdm

from diffcr.core.images import image_tensor
from diffcr.errors import DiffCRError
from diffcr.files import read_tensors, replacing_file
from diffcr.scenes import ScenesDataset
from diffcr.training.data.reading import CaptionedImages, read_batches
from diffcr.training.recipe import DataRecipe

_SAMPLES = 256


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
    versions: tuple[tuple[int, int], ...] = field(init=False)

    def __post_init__(self) -> None:
        entries = _read_metadata(self.path)[: self.size]
        files = [self.path / name for name, _ in entries]
        for file in files:
            if not file.is_file():
                raise DiffCRError(f"{file} is missing, metadata.jsonl names it")
        object.__setattr__(self, "entries", tuple(entries))
        # Part of what identifies the contents: a picture replaced under its name is another.
        stats = [file.stat() for file in files]
        object.__setattr__(self, "versions", tuple((s.st_size, s.st_mtime_ns) for s in stats))

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
    try:
        lines = metadata.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DiffCRError(f"{metadata} cannot be read as UTF-8: {error}") from error
    entries = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
            name, text = item["file_name"], item["text"]
            if not isinstance(name, str) or not isinstance(text, str):
                raise TypeError("both are texts")
            entries.append((name, text))
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
    with tqdm(total=len(dataset), desc="encoding pictures", mininterval=1) as progress:
        for items in read_batches(dataset, batch_size):
            caption_of += [captions.setdefault(item.caption, len(captions)) for item in items]
            latents.append(encode_images(pipe, [item.image for item in items]).float().cpu())
            progress.update(len(items))
    embeds, masks = _encode_captions(pipe, list(captions), max_sequence_length, batch_size)
    encoded = EncodedDataset(torch.cat(latents), embeds, masks, torch.tensor(caption_of))
    with replacing_file(path) as temporary:
        save_file({name: value.contiguous() for name, value in vars(encoded).items()}, temporary)
    return encoded


@torch.no_grad()
def encode_images(pipe: Any, images: Sequence[Image.Image]) -> Tensor:
    """Latents [B, C, h, w] of pictures of one size, scaled as the pipeline scales them, on the
    autoencoder's device and in its dtype."""
    pixels = image_tensor(images).to(pipe.vae.device, pipe.vae.dtype)
    latents: Tensor = pipe.vae.encode(pixels).latent_dist.mode() * pipe.vae.config.scaling_factor
    return latents


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
    digest.update(str(pipe.vae.config.scaling_factor).encode())
    # Pictures that are made when they are asked for change with the code that makes them.
    digest.update(dataset[0].image.tobytes())
    for module in (pipe.vae, pipe.text_encoder):
        digest.update(f"{type(module).__name__} {module.dtype}".encode())
        for parameter in module.parameters():
            # Values, not a sum, whose last digits would depend on the number of threads.
            sampled = parameter.detach().flatten()[:: parameter.numel() // _SAMPLES + 1]
            digest.update(sampled.double().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
