"""Where each method takes hold of a block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from diffcr.cost.flops import BlockShape
from diffcr.hosts.layout import BlockLayout
from diffcr.hosts.weights import HostWeights
from diffcr.methods.at_edm.pruner import TokenPruner, mapped_attention_forward, pruning_forward
from diffcr.methods.base import Attached
from diffcr.methods.configurations import (
    ATEDMConfig,
    AttachedConfig,
    StructuredPruningConfig,
    ToMeConfig,
)
from diffcr.methods.diffcr.compressor import Compressor
from diffcr.methods.diffcr.forward import routed_forward, scaled_mlp_forward
from diffcr.methods.pruning.pruner import StructuredPruner
from diffcr.methods.tome.merger import TokenMerger, merged_part_forward, merging_forward


@dataclass(frozen=True)
class HostFacts:
    """What a method's module is made for.

    Attributes:
        transformer: The host.
        block_groups: Its attributes that list the blocks, with their layout.
        block: Sizes of a block.
        base: The host's weights as they are.
    """

    transformer: nn.Module
    block_groups: Mapping[str, BlockLayout]
    block: BlockShape
    base: HostWeights

    @property
    def layers_per_group(self) -> dict[str, int]:
        """Blocks in each group."""
        return {group: len(getattr(self.transformer, group)) for group in self.block_groups}

    @property
    def layers(self) -> int:
        """Of all groups."""
        return sum(self.layers_per_group.values())


@dataclass(frozen=True)
class MethodSeam:
    """What takes the place of which forward.

    Attributes:
        block: Of every block; None leaves the blocks alone.
        parts: By the attribute of `BlockLayout` that names a part of a block.
    """

    block: Callable[..., Tensor] | None
    parts: Mapping[str, Callable[..., Tensor]] = field(default_factory=dict)


def make_attached(config: AttachedConfig, host: HostFacts) -> Attached[Any, Any]:
    """The module that a method registers on a transformer."""
    if isinstance(config, ToMeConfig):
        return TokenMerger(config, host.layers, host.base)
    if isinstance(config, ATEDMConfig):
        return TokenPruner(config, host.layers, host.base)
    if isinstance(config, StructuredPruningConfig):
        return StructuredPruner(config, host.transformer, host.block_groups, host.block, host.base)
    device = next(host.transformer.parameters()).device
    return Compressor(config, host.layers_per_group, host.block.width, device, host.base)


def seam_of(config: AttachedConfig) -> MethodSeam:
    """The forwards that a method binds."""
    if isinstance(config, ToMeConfig):
        names = {"attention": "self_attention", "mlp": "mlp"}
        parts = [names[part] for part in config.placement.split("-") if part in names]
        return MethodSeam(merging_forward, dict.fromkeys(parts, merged_part_forward))
    if isinstance(config, ATEDMConfig):
        return MethodSeam(pruning_forward, {"self_attention": mapped_attention_forward})
    if isinstance(config, StructuredPruningConfig):
        return MethodSeam(None)
    parts = ["mlp"] if config.gate == "sigmoid-mlp" else []
    return MethodSeam(routed_forward, dict.fromkeys(parts, scaled_mlp_forward))
