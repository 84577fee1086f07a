"""Configurations check themselves."""

from __future__ import annotations

from typing import Any

import pytest

from diffcr.errors import DiffCRError
from diffcr.methods.at_edm.config import ATEDMConfig
from diffcr.methods.config import DenseConfig
from diffcr.methods.diffcr.config import DiffCRConfig, MoDConfig
from diffcr.methods.pruning.config import StructuredPruningConfig
from diffcr.methods.registry import config_from_json_dict
from diffcr.methods.step_caches.config import MagCacheConfig, TaylorSeerConfig
from diffcr.methods.tome.config import ToMeConfig


@pytest.mark.parametrize(
    "values",
    [
        {"target_compression_ratio": 0.95},
        {"target_compression_ratio": -0.1},
        {"target_compression_ratio": "much"},
        {"max_compression_ratio": 0.85},
        {"max_compression_ratio": 1.1},
        {"timestep_regions": 0},
        {"timestep_regions": 2.5},
        {"gate": "tanh"},
        {"branching": "one"},
        {"mixing_probability": 0.0},
    ],
)
def test_a_value_outside_its_range_is_named(values: dict[str, Any]) -> None:
    with pytest.raises(DiffCRError, match=next(iter(values))):
        DiffCRConfig(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"compression_ratio": 0.25},
        {"compression_ratio": 1.0},
        {"compression_ratio": -0.1},
        {"compression_ratio": "much"},
        {"gate": "tanh"},
    ],
)
def test_a_uniform_ratio_is_a_bin(values: dict[str, Any]) -> None:
    with pytest.raises(DiffCRError, match=next(iter(values))):
        MoDConfig(**values)


def test_json_round_trip() -> None:
    for config in (
        DenseConfig(),
        DiffCRConfig(timestep_regions=1, gate="sigmoid"),
        MoDConfig(compression_ratio=0.3),
        ToMeConfig(placement="block"),
        ATEDMConfig(early_regions=0),
        StructuredPruningConfig(0.35),
        MagCacheConfig(0.1, (1.0, 0.99)),
        TaylorSeerConfig(4),
    ):
        assert config_from_json_dict(config.to_json_dict()) == config


def test_an_unknown_key_suggests_the_nearest() -> None:
    with pytest.raises(DiffCRError, match="did you mean 'timestep_regions'"):
        config_from_json_dict({"method": "diffcr", "timestep_region": 4})
    with pytest.raises(
        DiffCRError, match="known are at-edm, dense, diffcr, first-block-cache, mag"
    ):
        config_from_json_dict({"method": "guess"})
