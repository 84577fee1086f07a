"""Where each method takes hold of a block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from diffcr.attached import Attached
from diffcr.compressor import Compressor
from diffcr.config import ATEDMConfig, AttachedConfig, ToMeConfig
from diffcr.fingerprint import HostWeights
from diffcr.methods.at_edm import TokenPruner, mapped_attention_forward, pruning_forward
from diffcr.methods.diffcr import routed_forward, scaled_mlp_forward
from diffcr.methods.tome import TokenMerger, merged_part_forward, merging_forward


@dataclass(frozen=True)
class HostFacts:
    """What a method's module is made for.

    Attributes:
        layers_per_group: Blocks in each of the transformer's groups.
        width: Of a token.
        device: Of the transformer.
        base: Its weights as they are.
    """

    layers_per_group: Mapping[str, int]
    width: int
    device: torch.device
    base: HostWeights

    @property
    def layers(self) -> int:
        """Of all groups."""
        return sum(self.layers_per_group.values())


@dataclass(frozen=True)
class MethodSeam:
    """What takes the place of which forward.

    Attributes:
        block: Of every routed block.
        parts: By the attribute of `BlockLayout` that names a part of a block.
    """

    block: Callable[..., Tensor]
    parts: Mapping[str, Callable[..., Tensor]] = field(default_factory=dict)


def make_attached(config: AttachedConfig, host: HostFacts) -> Attached[Any, Any]:
    """The module that a method registers on a transformer."""
    if isinstance(config, ToMeConfig):
        return TokenMerger(config, host.layers, host.base)
    if isinstance(config, ATEDMConfig):
        return TokenPruner(config, host.layers, host.base)
    return Compressor(config, host.layers_per_group, host.width, host.device, host.base)


def seam_of(config: AttachedConfig) -> MethodSeam:
    """The forwards that a method binds."""
    if isinstance(config, ToMeConfig):
        names = {"attention": "self_attention", "mlp": "mlp"}
        parts = [names[part] for part in config.placement.split("-") if part in names]
        return MethodSeam(merging_forward, dict.fromkeys(parts, merged_part_forward))
    if isinstance(config, ATEDMConfig):
        return MethodSeam(pruning_forward, {"self_attention": mapped_attention_forward})
    parts = ["mlp"] if config.gate == "sigmoid-mlp" else []
    return MethodSeam(routed_forward, dict.fromkeys(parts, scaled_mlp_forward))
