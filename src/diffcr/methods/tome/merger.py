"""ToMe: similar tokens are merged, computed once, and spread again (arXiv 2303.17604)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diffcr.errors import DiffCRError
from diffcr.hosts.block_inputs import BlockInputs, BlockOutput, concatenated
from diffcr.hosts.grid import Grid
from diffcr.hosts.host import Host
from diffcr.hosts.layout import BlockLayout
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
        grid: Of the call.
        device: Of the call.
        destinations: As in `MergingContext`.
    """

    grid: Grid
    device: torch.device
    destinations: tuple[Tensor, ...]


class TokenMerger(Attached[ToMeConfig, MergingContext]):
    """Token merging on a transformer; it holds no weights."""

    needs_grid = True

    def __init__(self, config: ToMeConfig, host: Host) -> None:
        super().__init__(config, host)
        self.layers = host.layers
        self._grid: _GridDestinations | None = None

    def build_context(self, call: TransformerCall) -> MergingContext:
        """Destinations of every layer on the call's grid of tokens."""
        merged = merged_tokens(self.config, call.tokens)
        if call.positions is not None:
            positions = call.positions
            columns = call.grid.columns
            places = [draw_destinations_among(positions, columns, s) for s in self._seeds()]
            return MergingContext(tuple(places), merged)
        known = self._grid
        if known is None or (known.grid, known.device) != (call.grid, call.device):
            drawn = [_draw(call.grid, seed).to(call.device) for seed in self._seeds()]
            # Another thread may be drawing for another grid.
            self._grid = known = _GridDestinations(call.grid, call.device, tuple(drawn))
        return MergingContext(known.destinations, merged)

    def _seeds(self) -> list[int | None]:
        if self.config.destinations == "top-left":
            return [None] * self.layers
        return [self.config.seed * self.layers + layer for layer in range(self.layers)]

    def summary_lines(self) -> list[str]:
        """Nothing but the configuration."""
        return []


def _draw(grid: Grid, seed: int | None) -> Tensor:
    """Destinations of one layer: the same places in every frame, none beside the grid."""
    if grid.rows == 0:
        raise DiffCRError(
            "ToMe merges within cells of a grid, and a call does not say where its tokens lie"
        )
    within = draw_destinations(grid.rows, grid.columns, seed)
    frames = torch.arange(grid.frames).unsqueeze(1) * (grid.rows * grid.columns)
    return (frames + within).flatten()


def merged_tokens(config: ToMeConfig, tokens: int) -> int:
    """How many of N tokens are merged away."""
    # A ratio such as 0.29 of 100 is 28.999... in floating point.
    return int(tokens * config.compression_ratio + 1e-9)


def tome_seam(config: ToMeConfig) -> Seam:
    """Every block, and those of its parts that compute merged tokens."""
    names = {"attention": "self_attention", "mlp": "mlp"}
    parts = [names[part] for part in config.placement.split("-") if part in names]
    return Seam(merging_forward, dict.fromkeys(parts, merged_part_forward))


def refuses_merging(config: ToMeConfig, layout: BlockLayout) -> str | None:
    """Why tokens cannot be merged within blocks of a layout."""
    parts = tome_seam(config).parts
    joint = layout.rows != "all" or ("mlp" in parts and layout.mlp_others != "none")
    if parts and (joint or any(getattr(layout, part) is None for part in parts)):
        return (
            f"its blocks have no part {config.placement!r} that takes the routed tokens alone: "
            "give placement 'block'"
        )
    return None


def merging_forward(block: nn.Module, *args: Any, **kwargs: Any) -> BlockOutput:
    """Takes the place of a block's forward; same arguments, same return value."""
    bound: BoundBlock[TokenMerger] = bound_block(block)
    arguments = bound.name_arguments(args, kwargs)
    if not bound.attached.enabled or bound.attached.context.merged == 0:
        return bound.run(block, arguments)
    inputs, context = bound.inputs(arguments), bound.attached.context
    routed = inputs.routed
    merge = match_tokens(routed, context.destinations[bound.layer], context.merged)
    if bound.attached.config.placement != "block":
        inputs.layout.refuse_token_inputs(arguments, "ToMe")
        return bound.run_with(merge, block, arguments)
    if not inputs.layout.shares_tables or len(routed) == 1:
        return _run_merged(block, bound, inputs, merge)
    outputs = []
    for sample in torch.arange(len(routed), device=routed.device).split(1):
        outputs.append(
            _run_merged(block, bound, inputs.of_samples(sample), merge.of_samples(sample))
        )
    return concatenated(*outputs)


def _run_merged(
    block: nn.Module, bound: BoundBlock[TokenMerger], inputs: BlockInputs, merge: TokenMerge
) -> BlockOutput:
    """A merged token takes the place of its destination among the rows of the sequence."""
    routed = inputs.routed
    before = merge.merge(routed)

    def run(arguments: dict[str, Any]) -> BlockOutput:
        return bound.run(block, arguments)

    def spread(after: Tensor) -> Tensor:
        return routed.to(after.dtype) + merge.unmerge(after - before.to(after.dtype))

    return inputs.run_merged(merge.kept, before, run, spread)


def merged_part_forward(part: nn.Module, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Takes the place of the forward of a self-attention or a feed-forward."""
    bound = bound_part(part)
    merge: TokenMerge | None = bound.running
    if merge is None:
        return bound.host_forward(part, hidden_states, *args, **kwargs)
    return merge.unmerge(bound.host_forward(part, merge.merge(hidden_states), *args, **kwargs))
