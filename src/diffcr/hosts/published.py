"""Sizes of published models, for counting and timing without their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffcr.errors import DiffCRError, first_line
from diffcr.files import read_json
from diffcr.hosts.host import require_blocks
from diffcr.hosts.input_size import InputSize
from diffcr.hosts.pipelines.pixart import PIXELS_PER_LATENT

# Of a prompt in the paper's counts, which is PixArt-alpha's.
PAPERS_TEXT_TOKENS = 120
_PATCH = 2
_PIXART = "PixArtTransformer2DModel"


@dataclass(frozen=True)
class PublishedModel:
    """A model that others published.

    Attributes:
        class_name: Of its transformer in diffusers.
        config: Of its transformer, where it differs from the class's own defaults.
        tiny: What makes it small enough for a trial on a CPU, its parts as they are.
        text_tokens: Of a prompt, as its pipeline pads it.
        resolution: In pixels, of a side; None where there are checkpoints for several.
        frames: Of the latents of a video of usual length.
        has_size: Whether the configuration says how large the latents are.
        told_size_at: Resolution at which PixArt is told the picture's size.
    """

    class_name: str
    config: Mapping[str, Any]
    tiny: Mapping[str, Any]
    text_tokens: int = 512
    resolution: int | None = 1024
    frames: int = 1
    has_size: bool = False
    told_size_at: int | None = None


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
_TINY_PIXART = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "cross_attention_dim": 32,
    "caption_channels": 32,
}
_TINY_JOINT = {"num_attention_heads": 2, "num_layers": 2, "joint_attention_dim": 32}


def _pixart(told_size_at: int | None) -> PublishedModel:
    return PublishedModel(
        _PIXART,
        _PIXART_XL,
        _TINY_PIXART,
        PAPERS_TEXT_TOKENS,
        resolution=None,
        has_size=True,
        told_size_at=told_size_at,
    )


_MODELS: Mapping[str, PublishedModel] = {
    # Sigma is never told the picture's size (transformer/config.json).
    "pixart-sigma-xl": _pixart(None),
    "pixart-alpha-xl": _pixart(1024),
    # scripts/convert_flux_to_diffusers.py of diffusers; guidance_embeds as in FLUX.1-dev.
    "flux-dev": PublishedModel(
        "FluxTransformer2DModel",
        {"num_layers": 19, "num_single_layers": 38, "guidance_embeds": True},
        {**_TINY_JOINT, "num_single_layers": 2, "pooled_projection_dim": 32},
    ),
    # scripts/convert_sd3_to_diffusers.py: as many heads as layers, 384 for the one of 2 billion
    # parameters, a second attention in the first 13 layers. 77 tokens of CLIP and 256 of T5.
    "sd35-medium": PublishedModel(
        "SD3Transformer2DModel",
        {
            "num_layers": 24,
            "num_attention_heads": 24,
            "caption_projection_dim": 1536,
            "pos_embed_max_size": 384,
            "dual_attention_layers": tuple(range(13)),
            "qk_norm": "rms_norm",
        },
        {
            **_TINY_JOINT,
            "caption_projection_dim": 128,
            "pooled_projection_dim": 32,
            "pos_embed_max_size": 32,
            "dual_attention_layers": (0,),
        },
        text_tokens=333,
        has_size=True,
    ),
    # Its class's defaults (transformer_qwenimage.py).
    "qwen-image": PublishedModel("QwenImageTransformer2DModel", {}, _TINY_JOINT),
    # Its class's defaults (transformer_z_image.py).
    "z-image": PublishedModel(
        "ZImageTransformer2DModel",
        {},
        {
            "dim": 256,
            "n_heads": 2,
            "n_kv_heads": 2,
            "n_layers": 2,
            "n_refiner_layers": 1,
            "cap_feat_dim": 32,
        },
    ),
    # scripts/convert_wan_to_diffusers.py, Wan-T2V-1.3B; 81 frames are 21 of the latents.
    "wan-1.3b": PublishedModel(
        "WanTransformer3DModel",
        {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960},
        {"num_attention_heads": 2, "num_layers": 2, "ffn_dim": 64, "text_dim": 32},
        resolution=480,
        frames=21,
    ),
}
_TINY_TEXT, _TINY_FRAMES, _TINY_PIXELS = 8, 2, 64


def is_published(model: str) -> bool:
    """Whether it is the name of a published model, rather than a directory."""
    return model in _MODELS


def transformer_config(model: str, resolution: int | None, tiny: bool = False) -> dict[str, Any]:
    """A transformer's configuration, for pictures of `resolution` pixels a side.

    Args:
        model: Name of a published model, or a pipeline directory; that of a transformer works, too.
        resolution: In pixels; the model's own by default, which PixArt has several of.
        tiny: A published model with few and narrow layers, for a trial.

    Raises:
        DiffCRError: There is no such model, or no resolution, or one that does not fit.
    """
    if is_published(model):
        published, pixels = _MODELS[model], PIXELS_PER_LATENT
        resolution = _resolution(model, resolution, tiny)
        config = {"_class_name": published.class_name, **published.config}
        config |= published.tiny if tiny else {}
        if published.class_name == _PIXART:
            config["use_additional_conditions"] = resolution == published.told_size_at
        has_size = published.has_size
    else:
        config, pixels = _of_directory(Path(model))
        has_size = True
    multiple = pixels * int(config.get("patch_size", _PATCH) if has_size else _PATCH)
    if resolution is not None:
        if resolution < multiple or resolution % multiple:
            raise DiffCRError(f"resolution is {resolution}: give a multiple of {multiple}")
        if has_size:
            config["sample_size"] = resolution // pixels
    return config


def published_input(
    model: str, resolution: int | None, text_tokens: int | None = None, tiny: bool = False
) -> InputSize:
    """Size of a sample's inputs to a published model.

    Args:
        model: Its name.
        resolution: In pixels, of a side; its own by default.
        text_tokens: Of a prompt; as its pipeline pads them by default.
        tiny: As in `transformer_config`.
    """
    published = _MODELS[model]
    side = _resolution(model, resolution, tiny) // PIXELS_PER_LATENT
    usual = _TINY_TEXT if tiny else published.text_tokens
    frames = min(published.frames, _TINY_FRAMES) if tiny else published.frames
    return InputSize(usual if text_tokens is None else text_tokens, side, side, frames)


def _resolution(model: str, asked: int | None, tiny: bool) -> int:
    resolution = asked or (_TINY_PIXELS if tiny else _MODELS[model].resolution)
    if resolution is None:
        raise DiffCRError(f"{model} is published for several resolutions: give one")
    return resolution


def make_transformer(config: Mapping[str, Any]) -> Any:
    """A transformer of such a configuration with random weights, on torch's present device and in
    its present dtype; on the meta device it has none.

    Raises:
        DiffCRError: The configuration describes none.
    """
    import diffusers

    values = dict(config)
    name = values.pop("_class_name", _PIXART)
    try:
        transformer = getattr(diffusers, name).from_config(values)
    # What a wrong value raises depends on where diffusers uses it.
    except Exception as error:
        raise DiffCRError(
            f"no {name} has such a configuration ({type(error).__name__}: {first_line(error)}): "
            "copy its config.json again"
        ) from error
    require_blocks(transformer)
    return transformer


def _of_directory(directory: Path) -> tuple[dict[str, Any], int]:
    folder = directory / "transformer" if (directory / "transformer").is_dir() else directory
    if not (folder / "config.json").is_file():
        raise DiffCRError(
            f"{directory} is neither a published model ({', '.join(_MODELS)}) nor a "
            "directory with a transformer: give one of them"
        )
    config = read_json(folder / "config.json")
    if config.get("_class_name") != _PIXART:
        raise DiffCRError(f"{folder} holds a {config.get('_class_name')}: PixArt alone is counted")
    vae = directory / "vae" / "config.json"
    levels = len(read_json(vae)["block_out_channels"]) if vae.is_file() else 4
    return config, 2 ** (levels - 1)
