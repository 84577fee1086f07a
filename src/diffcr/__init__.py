"""Learned token compression for diffusion transformers (DiffCR, arXiv 2412.16822).

Importing this package imports no torch; its names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffcr.attached_model import disabled, get_compressor, parameter_groups, summary
    from diffcr.attachment import attach, detach
    from diffcr.compilation import compile
    from diffcr.config import (
        ATEDMConfig,
        DenseConfig,
        DiffCRConfig,
        MoDConfig,
        StructuredPruningConfig,
        ToMeConfig,
    )
    from diffcr.errors import DiffCRError
    from diffcr.families import supported_models
    from diffcr.io import load, save
    from diffcr.lora import add_lora

_HOMES = {
    "attach": "attachment",
    "detach": "attachment",
    "disabled": "attached_model",
    "get_compressor": "attached_model",
    "parameter_groups": "attached_model",
    "summary": "attached_model",
    "supported_models": "families",
    "compile": "compilation",
    "ATEDMConfig": "config",
    "DenseConfig": "config",
    "DiffCRConfig": "config",
    "MoDConfig": "config",
    "StructuredPruningConfig": "config",
    "ToMeConfig": "config",
    "DiffCRError": "errors",
    "load": "io",
    "save": "io",
    "add_lora": "lora",
}

__all__ = [
    "ATEDMConfig",
    "DenseConfig",
    "DiffCRConfig",
    "DiffCRError",
    "MoDConfig",
    "StructuredPruningConfig",
    "ToMeConfig",
    "__version__",
    "add_lora",
    "attach",
    "compile",
    "detach",
    "disabled",
    "get_compressor",
    "load",
    "parameter_groups",
    "save",
    "summary",
    "supported_models",
]

try:
    __version__ = version("diffcr")
except PackageNotFoundError:
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"diffcr.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'diffcr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
