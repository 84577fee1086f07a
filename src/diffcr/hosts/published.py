"""Sizes of published models, for counting and timing without their weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffcr.errors import DiffCRError
from diffcr.files import read_json
from diffcr.hosts.pixart import PIXELS_PER_LATENT

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
# Resolution at which a model is told the picture's size: Sigma never is (transformer/config.json).
_TOLD_SIZE_AT = {"pixart-alpha-xl": 1024, "pixart-sigma-xl": None}


def is_published(model: str) -> bool:
    """Whether it is the name of a published model, rather than a directory."""
    return model in _TOLD_SIZE_AT


def transformer_config(model: str, resolution: int | None) -> dict[str, Any]:
    """A transformer's configuration, for pictures of `resolution` pixels a side.

    Args:
        model: Name of a published model, or a pipeline directory; that of a transformer works, too.
        resolution: In pixels; needed for a published model, the pipeline's own by default.

    Raises:
        DiffCRError: There is no such model, or no resolution, or one that does not fit.
    """
    if is_published(model):
        if resolution is None:
            raise DiffCRError(f"{model} is published for several resolutions: give one")
        told = resolution == _TOLD_SIZE_AT[model]
        config, pixels = {**_PIXART_XL, "use_additional_conditions": told}, PIXELS_PER_LATENT
    else:
        config, pixels = _of_directory(Path(model))
    multiple = pixels * int(config["patch_size"])
    if resolution is not None:
        if resolution < multiple or resolution % multiple:
            raise DiffCRError(f"resolution is {resolution}: give a multiple of {multiple}")
        config["sample_size"] = resolution // pixels
    return config


def make_transformer(config: Mapping[str, Any]) -> Any:
    """A transformer of such a configuration with random weights, on torch's present device; on the
    meta device it has none."""
    from diffusers import PixArtTransformer2DModel

    return PixArtTransformer2DModel.from_config(config)


def _of_directory(directory: Path) -> tuple[dict[str, Any], int]:
    folder = directory / "transformer" if (directory / "transformer").is_dir() else directory
    if not (folder / "config.json").is_file():
        raise DiffCRError(
            f"{directory} is neither a published model ({', '.join(_TOLD_SIZE_AT)}) nor a "
            "directory with a transformer: give one of them"
        )
    config = read_json(folder / "config.json")
    if config.get("_class_name") != "PixArtTransformer2DModel":
        raise DiffCRError(f"{folder} holds a {config.get('_class_name')}: PixArt alone is counted")
    vae = directory / "vae" / "config.json"
    levels = len(read_json(vae)["block_out_channels"]) if vae.is_file() else 4
    return config, 2 ** (levels - 1)
