"""Sizes of published models, for counting without their weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffcr.errors import DiffCRError
from diffcr.files import read_json

_PIXART_XL: Mapping[str, Any] = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "cross_attention_dim": 1152,
    "patch_size": 2,
    "caption_channels": 4096,
}
# Of the autoencoder of every one of them.
_PIXELS_PER_LATENT = 8


def _pixart_sigma(resolution: int) -> dict[str, Any]:
    """Sigma is not told the picture's size, at no resolution (its `transformer/config.json`)."""
    return {**_PIXART_XL, "use_additional_conditions": False}


def _pixart_alpha(resolution: int) -> dict[str, Any]:
    """Alpha is told the picture's size at 1024 alone."""
    return {**_PIXART_XL, "use_additional_conditions": resolution == 1024}


_PUBLISHED = {"pixart-alpha-xl": _pixart_alpha, "pixart-sigma-xl": _pixart_sigma}


def transformer_config(model: str, resolution: int | None) -> dict[str, Any]:
    """A transformer's configuration, for pictures of `resolution` pixels a side.

    Args:
        model: Name of a published model, or a pipeline directory; that of a transformer works, too.
        resolution: In pixels; needed for a published model, the pipeline's own by default.

    Raises:
        DiffCRError: There is no such model, or no resolution, or one that does not fit.
    """
    if model in _PUBLISHED:
        if resolution is None:
            raise DiffCRError(f"{model} is published for several resolutions: give one")
        config = {**_PUBLISHED[model](resolution), "sample_size": resolution // _PIXELS_PER_LATENT}
        pixels = _PIXELS_PER_LATENT
    else:
        config, pixels = _of_directory(Path(model))
    multiple = pixels * int(config["patch_size"])
    if resolution is not None:
        if resolution < multiple or resolution % multiple:
            raise DiffCRError(f"resolution is {resolution}: give a multiple of {multiple}")
        config["sample_size"] = resolution // pixels
    return config


def _of_directory(directory: Path) -> tuple[dict[str, Any], int]:
    folder = directory / "transformer" if (directory / "transformer").is_dir() else directory
    if not (folder / "config.json").is_file():
        raise DiffCRError(
            f"{directory} is neither a published model ({', '.join(_PUBLISHED)}) nor a directory "
            "with a transformer: give one of them"
        )
    config = read_json(folder / "config.json")
    if config.get("_class_name") != "PixArtTransformer2DModel":
        raise DiffCRError(f"{folder} holds a {config.get('_class_name')}: PixArt alone is counted")
    vae = directory / "vae" / "config.json"
    levels = len(read_json(vae)["block_out_channels"]) if vae.is_file() else 4
    return config, 2 ** (levels - 1)
