"""A transformer of a known family, as methods are made for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from diffcr.errors import DiffCRError
from diffcr.hosts import family_of
from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout
from diffcr.hosts.weights import HostWeights


@dataclass(frozen=True)
class HostBlock:
    """A block that methods may bind.

    Attributes:
        group: Attribute of the transformer that lists it.
        row: Its index there.
        module: The block.
        layout: How it takes its inputs.
    """

    group: str
    row: int
    module: nn.Module
    layout: BlockLayout

    @property
    def name(self) -> str:
        """Its path in the transformer."""
        return f"{self.group}.{self.row}"


@dataclass(frozen=True)
class Host:
    """A transformer and its family.

    Attributes:
        transformer: The model.
        family: Its adapter.
        weights: Its own weights, as a method finds them.
    """

    transformer: nn.Module
    family: Family
    weights: HostWeights

    @classmethod
    def of(cls, transformer: nn.Module, weights: HostWeights | None = None) -> Host:
        """A transformer with its weights as they are, if they are not given.

        Raises:
            DiffCRError: Its class is not supported.
        """
        family = family_of(transformer)
        return cls(transformer, family, weights or HostWeights.of(transformer))

    @property
    def blocks(self) -> list[HostBlock]:
        """All blocks, in the order of their layers."""
        return host_blocks(self.transformer)

    @property
    def width(self) -> int:
        """Of the routed tokens."""
        return self.family.width(self.transformer.config)

    @property
    def layers(self) -> int:
        """Blocks of all groups."""
        return len(self.blocks)

    @property
    def device(self) -> torch.device:
        """Of its weights."""
        return next(self.transformer.parameters()).device


def require_blocks(transformer: nn.Module) -> None:
    """Raises DiffCRError where a transformer has no blocks: its other layers would run alone."""
    if not host_blocks(transformer):
        raise DiffCRError(
            f"this {type(transformer).__name__} has no blocks (its config.json says so): copy the "
            "model again"
        )


def host_blocks(transformer: nn.Module) -> list[HostBlock]:
    """The blocks of a transformer, in the order of their layers.

    Raises:
        DiffCRError: Its class is not supported.
    """
    return [
        HostBlock(group, row, block, layout)
        for group, layout in family_of(transformer).block_groups.items()
        for row, block in enumerate(getattr(transformer, group))
    ]
