"""ToMe: similar tokens are merged, computed once, and spread again (arXiv 2303.17604)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diffcr.hosts.host import Host
from diffcr.methods.base import Attached, TransformerCall
from diffcr.methods.bound import BoundBlock, bound_block, bound_part
from diffcr.methods.seam import Seam
from diffcr.methods.tome.config import ToMeConfig
from diffcr.methods.tome.matching import (
    TokenMerge,
    draw_destinations,
    draw_destinations_among,
    match_tokens,
)


@dataclass(frozen=True)
class MergingContext:
    """One call of the transformer.

    Attributes:
        destinations: Of every layer, [cells] or [B, cells] int64, the tokens that others are
            merged into.
        merged: Tokens that are merged away.
    """

    destinations: tuple[Tensor, ...]
    merged: int


@dataclass(frozen=True)
class _GridDestinations:
    """Drawn once for all denoising steps: they depend on the grid alone.

    Attributes:
        grid: Rows, columns, device.
        destinations: As in `MergingContext`.
    """

    grid: tuple[int, int, torch.device]
    destinations: tuple[Tensor, ...]


class TokenMerger(Attached[ToMeConfig, MergingContext]):
    """Token merging on a transformer; it holds no weights."""

    def __init__(self, config: ToMeConfig, host: Host) -> None:
        super().__init__(config, host)
        self.layers = host.layers
        self._grid: _GridDestinations | None = None

    def build_context(self, call: TransformerCall) -> MergingContext:
        """Destinations of every layer on the call's grid of tokens."""
        merged = merged_tokens(self.config, call.tokens)
        if call.positions is not None:
            positions = call.positions
            places = [draw_destinations_among(positions, call.columns, s) for s in self._seeds()]
            return MergingContext(tuple(places), merged)
        grid = (call.rows, call.columns, call.device)
        known = self._grid
        if known is None or known.grid != grid:
            drawn = [draw_destinations(call.rows, call.columns, seed) for seed in self._seeds()]
            # Another thread may be drawing for another grid.
            self._grid = known = _GridDestinations(grid, tuple(p.to(call.device) for p in drawn))
        return MergingContext(known.destinations, merged)

    def _seeds(self) -> list[int | None]:
        if self.config.destinations == "top-left":
            return [None] * self.layers
        return [self.config.seed * self.layers + layer for layer in range(self.layers)]

    def summary_lines(self) -> list[str]:
        """Nothing but the configuration."""
        return []


def merged_tokens(config: ToMeConfig, tokens: int) -> int:
    """How many of N tokens are merged away."""
    # A ratio such as 0.29 of 100 is 28.999... in floating point.
    return int(tokens * config.compression_ratio + 1e-9)


def tome_seam(config: ToMeConfig) -> Seam:
    """Every block, and those of its parts that compute merged tokens."""
    names = {"attention": "self_attention", "mlp": "mlp"}
    parts = [names[part] for part in config.placement.split("-") if part in names]
    return Seam(merging_forward, dict.fromkeys(parts, merged_part_forward))


def merging_forward(block: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    """Takes the place of a block's forward; same arguments, same return value."""
    bound: BoundBlock[TokenMerger] = bound_block(block)
    arguments = bound.name_arguments(args, kwargs)
    hidden_states: Tensor = arguments[bound.layout.hidden_states]
    if not bound.attached.enabled or bound.attached.context.merged == 0:
        return bound.host_forward(block, **arguments)
    bound.layout.refuse_token_inputs(arguments, "ToMe")
    context = bound.attached.context
    merge = match_tokens(hidden_states, context.destinations[bound.layer], context.merged)
    if bound.attached.config.placement != "block":
        return bound.run_with(merge, block, arguments)
    before = merge.merge(hidden_states)
    after = bound.host_forward(block, **{**arguments, bound.layout.hidden_states: before})
    return hidden_states.to(after.dtype) + merge.unmerge(after - before.to(after.dtype))


def merged_part_forward(
    part: nn.Module, hidden_states: Tensor, *args: Any, **kwargs: Any
) -> Tensor:
    """Takes the place of the forward of a self-attention or a feed-forward."""
    bound = bound_part(part)
    merge: TokenMerge | None = bound.running
    if merge is None:
        return bound.host_forward(part, hidden_states, *args, **kwargs)
    return merge.unmerge(bound.host_forward(part, merge.merge(hidden_states), *args, **kwargs))
