"""AT-EDM: what a self-attention map calls unimportant is pruned until its group of layers ends.

Wang et al., CVPR 2024, arXiv 2405.05252, written for U-Nets; the grouping of a transformer's layers
and the place where pruned tokens come back are ours (docs/baselines.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from diffcr.core.regions import region_of
from diffcr.core.select import gather_tokens, rank_tokens
from diffcr.errors import DiffCRError
from diffcr.hosts.host import Host
from diffcr.hosts.layout import AttentionWithMap, BlockLayout
from diffcr.methods.at_edm.config import ATEDMConfig
from diffcr.methods.at_edm.page_rank import page_rank, stand_ins
from diffcr.methods.base import Attached, TransformerCall
from diffcr.methods.bound import BoundBlock, bound_block, bound_part
from diffcr.methods.seam import Seam

_LARGEST_SHARE = 0.95


@dataclass(frozen=True)
class PrunedGroup:
    """What gives a group's pruned tokens back.

    Attributes:
        stand_ins: [B, N] int64, places among the kept tokens.
        apart: [B, N, D], a token less its stand-in when it was pruned; 0 for kept ones.
    """

    stand_ins: Tensor
    apart: Tensor


@dataclass
class PruningContext:
    """One call of the transformer.

    Attributes:
        kept: Tokens that the pruned layers compute.
        groups: By their first layer, those that were pruned so far.
    """

    kept: int
    groups: dict[int, PrunedGroup] = field(default_factory=dict)


@dataclass
class _WantedMap:
    """What a block asks of its self-attention while it runs."""

    attention: Tensor | None = None


class TokenPruner(Attached[ATEDMConfig, PruningContext]):
    """Attention-driven pruning on a transformer; it holds no weights."""

    def __init__(self, config: ATEDMConfig, host: Host) -> None:
        super().__init__(config, host)
        self.layers = host.layers
        for region in range(config.timestep_regions):
            pruned_share(config, host.layers, region)

    @property
    def timestep_regions(self) -> int:
        """Equal parts of the noise range that prune a share of their own."""
        return self.config.timestep_regions

    @property
    def reads_timesteps(self) -> bool:
        """Whether noisy timesteps prune otherwise than clean ones."""
        tells_apart = self.config.early_regions > 0 and self.config.early_share < 1
        return tells_apart and self.current.region is None

    def build_context(self, call: TransformerCall) -> PruningContext:
        """How many tokens are kept at the call's noise level."""
        regions = {self.current.region or 0}
        if self.current.region is None and call.noise_levels is not None:
            regions = {region_of(level, self.timestep_regions) for level in call.noise_levels}
        kept = {unpruned_tokens(self.config, self.layers, call.tokens, r) for r in regions}
        if len(kept) > 1:
            raise DiffCRError(
                f"AT-EDM keeps {' and '.join(map(str, sorted(kept)))} tokens at the timesteps of "
                "this batch: call the model with one timestep for all samples, or set "
                "early_share to 1"
            )
        return PruningContext(kept.pop())

    def summary_lines(self) -> list[str]:
        """Share of pruned tokens at either end of the noise range."""
        clean, noisy = (
            pruned_share(self.config, self.layers, region)
            for region in (0, self.config.timestep_regions - 1)
        )
        return [f"pruned layers skip {clean:.1%} of the tokens, {noisy:.1%} at the noisiest levels"]

    def opens_group(self, layer: int) -> bool:
        """Whether tokens are pruned after this layer, for others to follow."""
        return layer % self.config.layers_per_group == 0 and layer + 1 < self.layers

    def closing_group(self, layer: int) -> int | None:
        """The first layer of the group that ends with this one; None inside of a group."""
        size = self.config.layers_per_group
        ends = (layer + 1) % size == 0 or layer + 1 == self.layers
        first = layer - layer % size
        return first if ends and layer > first else None


def pruned_share(config: ATEDMConfig, layers: int, region: int) -> float:
    """Share of tokens that pruned layers skip, so that all layers skip the configured mean.

    Raises:
        DiffCRError: It would be nearly all of them.
    """
    groups = -(-layers // config.layers_per_group)
    share = config.region_ratio(region) * layers / max(layers - groups, 1)
    if share > _LARGEST_SHARE:
        raise DiffCRError(
            f"compression_ratio {config.compression_ratio} would prune {share:.0%} of the tokens "
            f"in the {layers - groups} of {layers} layers that AT-EDM prunes: lower it, or raise "
            "layers_per_group"
        )
    return share


def unpruned_tokens(config: ATEDMConfig, layers: int, tokens: int, region: int) -> int:
    """Tokens that the pruned layers compute."""
    return tokens - int(tokens * pruned_share(config, layers, region) + 1e-9)


def at_edm_seam(config: ATEDMConfig) -> Seam:
    """Every block, and its self-attention, which hands out its map."""
    return Seam(pruning_forward, {"self_attention": mapped_attention_forward})


def refuses_maps(config: ATEDMConfig, layout: BlockLayout) -> str | None:
    """Why tokens cannot be pruned by the attention of blocks of a layout."""
    if layout.attend_with_map is None:
        return (
            "AT-EDM needs the map of a self-attention over image tokens, and hosts that take fewer "
            "tokens from block to block"
        )
    return None


def pruning_forward(block: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    """Takes the place of a block's forward.

    The output holds fewer tokens than the input after the first layer of a group, and more after
    the last; hosts hand it on from block to block as it is.
    """
    bound: BoundBlock[TokenPruner] = bound_block(block)
    arguments = bound.name_arguments(args, kwargs)
    pruner = bound.attached
    if not pruner.enabled:
        output: Tensor = bound.run(block, arguments)
        return output
    context = pruner.context
    hidden_states: Tensor = arguments[bound.layout.hidden_states]
    if pruner.opens_group(bound.layer) and context.kept < hidden_states.shape[1]:
        bound.layout.refuse_token_inputs(arguments, "AT-EDM")
        return _prune_after(block, bound, arguments)
    output = bound.run(block, arguments)
    first = pruner.closing_group(bound.layer)
    if first is None or first not in context.groups:
        return output
    group = context.groups[first]
    return gather_tokens(output, group.stand_ins) + group.apart


def _prune_after(
    block: nn.Module, bound: BoundBlock[TokenPruner], arguments: dict[str, Any]
) -> Tensor:
    wanted = _WantedMap()
    output = bound.run_with(wanted, block, arguments)
    assert wanted.attention is not None
    pruner = bound.attached
    importance = page_rank(wanted.attention, pruner.config.page_rank_iterations)
    kept = rank_tokens(importance)[:, : pruner.context.kept]
    remaining = gather_tokens(output, kept)
    places = stand_ins(wanted.attention, kept)
    apart = output - gather_tokens(remaining, places)
    pruner.context.groups[bound.layer] = PrunedGroup(places, apart)
    return remaining


def mapped_attention_forward(attention: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Takes the place of a self-attention's forward, and hands out its map where it is wanted."""
    bound = bound_part(attention)
    wanted: _WantedMap | None = bound.running
    if wanted is None:
        return bound.host_forward(attention, *args, **kwargs)
    arguments = {**dict(zip(bound.argument_names, args, strict=False)), **kwargs}
    attend = bound.owner.layout.attend_with_map
    assert attend is not None
    result: AttentionWithMap = attend(attention, arguments)
    wanted.attention = result.attention
    return result.output
