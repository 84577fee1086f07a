"""Lazy Diffusion (Nitzan et al., ECCV 2024, arXiv 2404.12382): only what is masked is generated."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffcr.inpainting.baselines import RegenerateCrop, RegenerateImage
    from diffcr.inpainting.decoder import LazyTransformer2DModel
    from diffcr.inpainting.encoder import ContextEncoder
    from diffcr.inpainting.pipeline import LazyInpaintPipeline

_HOMES = {
    "ContextEncoder": "encoder",
    "LazyInpaintPipeline": "pipeline",
    "LazyTransformer2DModel": "decoder",
    "RegenerateCrop": "baselines",
    "RegenerateImage": "baselines",
}
__all__ = [
    "ContextEncoder",
    "LazyInpaintPipeline",
    "LazyTransformer2DModel",
    "RegenerateCrop",
    "RegenerateImage",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"diffcr.inpainting.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'diffcr.inpainting' has no attribute {name!r}")
