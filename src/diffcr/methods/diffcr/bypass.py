"""What tokens that bypass a layer get from it: a low-rank map of themselves.

Shapes: B samples, N tokens, D width, r rank, R timestep regions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffcr.errors import DiffCRError


class BypassMap(NamedTuple):
    """One layer's map x -> x down up + bias.

    Attributes:
        down: [D, r].
        up: [r, D].
        bias: [R, D].
    """

    down: Tensor
    up: Tensor
    bias: Tensor


class LinearBypass(nn.Module):
    """The maps of a transformer's layers.

    Attributes:
        down: Per block group one Parameter [layers of the group, D, r]; a fixed draw at first.
        up: Likewise [layers, r, D]; starts at 0, so that a token is left as it is.
        bias: Likewise [layers, R, D]; starts at 0.

    Args:
        layers_of: Number of layers by block group.
        width: D.
        rank: r.
        timestep_regions: R.

    Raises:
        DiffCRError: The rank is above the model's width.
    """

    def __init__(
        self, layers_of: Mapping[str, int], width: int, rank: int, timestep_regions: int
    ) -> None:
        super().__init__()
        self.down, self.up, self.bias = nn.ParameterDict(), nn.ParameterDict(), nn.ParameterDict()
        generator = torch.Generator().manual_seed(0)
        if rank > width:
            raise DiffCRError(f"bypass_rank is {rank}: give at most the width, {width}")
        for group, layers in layers_of.items():
            drawn = torch.randn(layers, width, rank, generator=generator) * width**-0.5
            self.down[group] = nn.Parameter(drawn)
            self.up[group] = nn.Parameter(torch.zeros(layers, rank, width))
            self.bias[group] = nn.Parameter(torch.zeros(layers, timestep_regions, width))

    def of_block(self, group: str, row: int) -> BypassMap:
        """The map of a block by its group and its place there."""
        return BypassMap(self.down[group][row], self.up[group][row], self.bias[group][row])

    def of_layers(self) -> Iterator[BypassMap]:
        """The maps of all layers."""
        for group, maps in self.down.items():
            for row in range(len(maps)):
                yield self.of_block(group, row)


def mapped(bypass: BypassMap, region: int, tokens: Tensor) -> Tensor:
    """What a layer adds to tokens [B, N, D] that bypass it in a timestep region, in their dtype."""
    down, up, bias = (part.to(tokens.dtype) for part in bypass)
    return (tokens @ down @ up + bias[region]).to(tokens.dtype)
