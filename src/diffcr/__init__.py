"""Learned token compression for diffusion transformers (DiffCR, arXiv 2412.16822).

Importing this package imports no torch; its names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffcr.binding.attachment import attach, detach
    from diffcr.binding.compilation import compile
    from diffcr.binding.fusing import fuse_lora, unfuse_lora
    from diffcr.binding.lora import add_lora
    from diffcr.binding.model import (
        disabled,
        get_compressor,
        parameter_groups,
        summary,
        trajectory,
    )
    from diffcr.checkpoint.loading import load
    from diffcr.checkpoint.pushing import push
    from diffcr.checkpoint.saving import save
    from diffcr.distillation.distill import distill
    from diffcr.distillation.settings import DistillationSettings
    from diffcr.errors import DiffCRError
    from diffcr.evaluation.bypass_fitting import fit_bypass
    from diffcr.evaluation.calibration import calibrate
    from diffcr.evaluation.mag_ratios import measure_mag_ratios
    from diffcr.hosts import register_model, supported_models
    from diffcr.methods.at_edm.config import ATEDMConfig
    from diffcr.methods.config import DenseConfig
    from diffcr.methods.diffcr.config import DiffCRConfig, MoDConfig
    from diffcr.methods.pruning.config import StructuredPruningConfig
    from diffcr.methods.reuse.config import ReuseConfig
    from diffcr.methods.step_caches.config import (
        FirstBlockCacheConfig,
        MagCacheConfig,
        PyramidAttentionBroadcastConfig,
        TaylorSeerConfig,
        TGateConfig,
    )
    from diffcr.methods.tome.config import ToMeConfig

_HOMES = {
    "attach": "binding.attachment",
    "detach": "binding.attachment",
    "disabled": "binding.model",
    "get_compressor": "binding.model",
    "parameter_groups": "binding.model",
    "calibrate": "evaluation.calibration",
    "distill": "distillation.distill",
    "DistillationSettings": "distillation.settings",
    "fit_bypass": "evaluation.bypass_fitting",
    "measure_mag_ratios": "evaluation.mag_ratios",
    "summary": "binding.model",
    "trajectory": "binding.model",
    "supported_models": "hosts",
    "register_model": "hosts",
    "compile": "binding.compilation",
    "ATEDMConfig": "methods.at_edm.config",
    "DenseConfig": "methods.config",
    "DiffCRConfig": "methods.diffcr.config",
    "MoDConfig": "methods.diffcr.config",
    "ReuseConfig": "methods.reuse.config",
    "StructuredPruningConfig": "methods.pruning.config",
    "FirstBlockCacheConfig": "methods.step_caches.config",
    "MagCacheConfig": "methods.step_caches.config",
    "PyramidAttentionBroadcastConfig": "methods.step_caches.config",
    "TGateConfig": "methods.step_caches.config",
    "TaylorSeerConfig": "methods.step_caches.config",
    "ToMeConfig": "methods.tome.config",
    "DiffCRError": "errors",
    "load": "checkpoint.loading",
    "push": "checkpoint.pushing",
    "save": "checkpoint.saving",
    "add_lora": "binding.lora",
    "fuse_lora": "binding.fusing",
    "unfuse_lora": "binding.fusing",
}

__all__ = [
    "ATEDMConfig",
    "DenseConfig",
    "DiffCRConfig",
    "DiffCRError",
    "DistillationSettings",
    "FirstBlockCacheConfig",
    "MagCacheConfig",
    "MoDConfig",
    "PyramidAttentionBroadcastConfig",
    "ReuseConfig",
    "StructuredPruningConfig",
    "TGateConfig",
    "TaylorSeerConfig",
    "ToMeConfig",
    "__version__",
    "add_lora",
    "attach",
    "calibrate",
    "compile",
    "detach",
    "disabled",
    "distill",
    "fit_bypass",
    "fuse_lora",
    "get_compressor",
    "load",
    "measure_mag_ratios",
    "parameter_groups",
    "push",
    "register_model",
    "save",
    "summary",
    "supported_models",
    "trajectory",
    "unfuse_lora",
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
