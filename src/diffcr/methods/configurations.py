"""One frozen dataclass per method: validated when made, JSON in, JSON out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, ClassVar

from diffcr.errors import DiffCRError
from diffcr.methods.at_edm.config import ATEDMConfig
from diffcr.methods.diffcr.config import DiffCRConfig, MoDConfig, RoutedConfig
from diffcr.methods.pruning.config import StructuredPruningConfig
from diffcr.methods.tome.config import ToMeConfig

__all__ = [
    "ATEDMConfig",
    "AttachedConfig",
    "DenseConfig",
    "DiffCRConfig",
    "MethodConfig",
    "MoDConfig",
    "RoutedConfig",
    "StructuredPruningConfig",
    "ToMeConfig",
    "TrainedConfig",
    "TrainingFreeConfig",
    "config_from_json_dict",
    "config_to_json_dict",
]


@dataclass(frozen=True)
class DenseConfig:
    """The bare model, through the same calls as every other method: the oracle of comparisons."""

    method: ClassVar[str] = "dense"


TrainingFreeConfig = ToMeConfig | ATEDMConfig
TrainedConfig = DenseConfig | RoutedConfig | StructuredPruningConfig
AttachedConfig = RoutedConfig | TrainingFreeConfig | StructuredPruningConfig
MethodConfig = DenseConfig | AttachedConfig
_CONFIGS: dict[str, type[MethodConfig]] = {
    config.method: config
    for config in (
        DenseConfig,
        DiffCRConfig,
        MoDConfig,
        ToMeConfig,
        ATEDMConfig,
        StructuredPruningConfig,
    )
}


def config_to_json_dict(config: MethodConfig) -> dict[str, Any]:
    """The configuration as a JSON object whose key `method` names its class."""
    return {"method": config.method, **asdict(config)}


def config_from_json_dict(values: dict[str, Any]) -> MethodConfig:
    """Inverse of `config_to_json_dict`.

    Raises:
        DiffCRError: The method or a key is not known, or a value is outside its range.
    """
    values = dict(values)
    method = values.pop("method", None)
    if not isinstance(method, str) or method not in _CONFIGS:
        raise DiffCRError(f"method is {method!r}: known are {', '.join(sorted(_CONFIGS))}")
    known = [field.name for field in fields(_CONFIGS[method])]
    for key in values:
        if key not in known:
            nearest = get_close_matches(key, known, n=1, cutoff=0)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise DiffCRError(f"unknown key {key!r} for method {method!r}{hint}")
    return _CONFIGS[method](**values)
