"""DiffCR: the router's tokens pass through the host's block, the others bypass it (Sec. 3.2)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from diffcr.core.select import rank_tokens, router_logits, scale_update
from diffcr.hosts.block_inputs import (
    BlockInputs,
    BlockOutput,
    combined,
    concatenated,
    reordered,
    sequence_of,
)
from diffcr.hosts.layout import BlockLayout
from diffcr.methods.bound import BoundBlock, bound_block, bound_part
from diffcr.methods.diffcr.bypass import mapped
from diffcr.methods.diffcr.compressor import Compressor
from diffcr.methods.diffcr.config import RoutedConfig
from diffcr.methods.diffcr.gpu import kernels_for
from diffcr.methods.diffcr.kept_updates import UpdateRun
from diffcr.methods.diffcr.plans import LayerPlan, RegionPlan
from diffcr.methods.seam import Seam


def routed_seam(config: RoutedConfig) -> Seam:
    """Every block, and its feed-forward where the gate scales that alone."""
    parts = ["mlp"] if config.gate == "sigmoid-mlp" else []
    return Seam(routed_forward, dict.fromkeys(parts, scaled_mlp_forward))


def refuses_routing(config: RoutedConfig, layout: BlockLayout) -> str | None:
    """Why blocks of a layout cannot be routed."""
    if config.gate == "sigmoid-mlp" and layout.mlp is None:
        return (
            "its blocks have no feed-forward that computes the routed tokens alone: give another "
            "gate than 'sigmoid-mlp'"
        )
    return None


def routed_forward(block: nn.Module, *args: Any, **kwargs: Any) -> BlockOutput:
    """Takes the place of a block's forward; same arguments, same return value."""
    bound: BoundBlock[Compressor] = bound_block(block)
    arguments = bound.name_arguments(args, kwargs)
    if not bound.attached.enabled:
        return bound.run(block, arguments)
    context, inputs = bound.attached.context, bound.inputs(arguments)
    ranking = context.rankings.get(bound.layer)
    if context.run is not None:
        plan = context.regions[0].layers[bound.layer]
        return _run_reusing(block, bound, inputs, plan, ranking, context.run)
    if len(context.regions) == 1:
        return _run_region(block, bound, inputs, context.regions[0], ranking)
    return _run_mixed_regions(block, bound, inputs, context.regions, ranking)


def _run_mixed_regions(
    block: nn.Module,
    bound: BoundBlock[Compressor],
    inputs: BlockInputs,
    regions: tuple[RegionPlan, ...],
    ranking: Tensor | None,
) -> BlockOutput:
    outputs, places = [], []
    for region in regions:
        assert region.samples is not None
        held = None if ranking is None else ranking.index_select(0, region.samples)
        selected = inputs.of_samples(region.samples)
        outputs.append(_run_region(block, bound, selected, region, held))
        places.append(region.samples)
    # A region whose layer is skipped keeps its input's dtype; concatenation promotes it.
    return reordered(concatenated(*outputs), torch.argsort(torch.cat(places)))


def _run_region(
    block: nn.Module,
    bound: BoundBlock[Compressor],
    inputs: BlockInputs,
    region: RegionPlan,
    ranking: Tensor | None,
) -> BlockOutput:
    plan, attached = region.layers[bound.layer], bound.attached
    kernels = kernels_for(inputs.sequence)
    if kernels is not None or attached.run_branch is not None or plan.drops(inputs.tokens):
        # A compiled branch guards strides: a first layer with others would add graphs of its own.
        inputs = inputs.with_whole_rows()
    routed = inputs.routed
    assert routed.shape[1] == inputs.tokens
    bypass = None
    if attached.linear_bypass is not None and plan.bypasses(inputs.tokens):
        maps = attached.linear_bypass.of_block(bound.group, bound.row)
        bypass = mapped(maps, region.region, routed)
    alone = inputs.layout.shares_tables and len(routed) > 1 and plan.drops(inputs.tokens)
    whole = inputs.tokens == inputs.sequence.shape[1] and not alone
    takes_kernels = ranking is None and plan.weight is None and bypass is None
    if kernels is not None and whole and takes_kernels:
        return _run_with_kernels(kernels, block, bound, inputs, plan.kept_tokens)
    logits = router_logits(routed, attached.routers[bound.group][bound.row])
    if ranking is None and plan.drops(inputs.tokens):
        ranking = rank_tokens(logits, attached.context.scattered)
    if plan.weight is not None and plan.mixed_kept_tokens is None:
        # A zero that keeps the ratio in the graph, on the smallest tensor of the branch.
        logits = logits + plan.weight.to(logits.dtype)
    run = _run_one_by_one if alone else _run_together
    output = run(block, bound, inputs, logits, ranking, plan.kept_tokens, bypass)
    if plan.mixed_kept_tokens is None:
        return output
    mixed = run(block, bound, inputs, logits, ranking, plan.mixed_kept_tokens, bypass)
    return combined(partial(_mixed, weight=plan.weight), output, mixed)


def _run_reusing(
    block: nn.Module,
    bound: BoundBlock[Compressor],
    inputs: BlockInputs,
    plan: LayerPlan,
    ranking: Tensor | None,
    run: UpdateRun,
) -> BlockOutput:
    """Skipped tokens get what the layer added to them before. A layer that has nothing of tokens
    like these, in a run's first call or after one that was aborted, computes all of them."""
    attached, inputs = bound.attached, inputs.with_whole_rows()
    routed = inputs.routed
    kept = run.kept(bound.layer, routed)
    count = inputs.tokens if kept is None else plan.kept_tokens
    logits = router_logits(routed, attached.routers[bound.group][bound.row])
    if ranking is None:
        ranking = rank_tokens(logits, attached.context.scattered)
        if kept is not None:
            ranking = kept.stale_first(ranking, attached.config.max_age)
    alone = inputs.layout.shares_tables and len(routed) > 1 and 0 < count < inputs.tokens
    compute = _run_one_by_one if alone else _run_together
    updates = None if kept is None else kept.updates
    output = compute(block, bound, inputs, logits, ranking, count, updates)
    if count == inputs.tokens and attached.skips_somewhere(bound.layer):
        run.keep_all(bound.layer, routed, inputs.routed_of(output))
    elif kept is not None:
        run.computed(bound.layer, ranking[:, :count])
    return output


def _mixed(output: Tensor, mixed: Tensor, weight: Tensor | None) -> Tensor:
    assert weight is not None
    return torch.lerp(output, mixed.to(output.dtype), weight.to(output.dtype))


def _run_together(
    block: nn.Module,
    bound: BoundBlock[Compressor],
    inputs: BlockInputs,
    logits: Tensor,
    ranking: Tensor | None,
    kept_tokens: int,
    bypass: Tensor | None = None,
) -> BlockOutput:
    run = bound.attached.run_branch or run_branch
    gate = bound.attached.config.gate
    remembers = bypass is not None and bound.attached.context.run is not None
    given = inputs.arguments, logits, ranking, kept_tokens, gate, inputs.starts, bypass, remembers
    return run(block, *given)


def _run_one_by_one(
    block: nn.Module,
    bound: BoundBlock[Compressor],
    inputs: BlockInputs,
    logits: Tensor,
    ranking: Tensor | None,
    kept_tokens: int,
    bypass: Tensor | None,
) -> BlockOutput:
    """Samples that keep other tokens, where the block's tables have no batch dimension."""
    outputs = []
    for place, sample in enumerate(torch.arange(len(logits), device=logits.device).split(1)):
        held = None if ranking is None else ranking.index_select(0, sample)
        selected, scores = inputs.of_samples(sample), logits.index_select(0, sample)
        # A view, which may be written to.
        added = None if bypass is None else bypass[place : place + 1]
        outputs.append(_run_together(block, bound, selected, scores, held, kept_tokens, added))
    return concatenated(*outputs)


def _run_with_kernels(
    kernels: Any,
    block: nn.Module,
    bound: BoundBlock[Compressor],
    inputs: BlockInputs,
    kept_tokens: int,
) -> BlockOutput:
    """What `run_branch` and the lines before it do, with the kernels around the block."""
    attached, gate = bound.attached, bound.attached.config.gate
    hidden_states = inputs.sequence
    if kept_tokens == 0:
        return inputs.unchanged
    logits = kernels.score(hidden_states, attached.routers[bound.group][bound.row])
    if kept_tokens == inputs.tokens:
        return _run_together(block, bound, inputs, logits, None, kept_tokens)
    ranking, places = kernels.rank(logits, attached.context.scattered)
    indices = ranking[:, :kept_tokens]
    before = kernels.gather(hidden_states, ranking, kept_tokens)
    selected = inputs.at_rows(indices, before)
    scale = torch.sigmoid(logits.gather(1, indices)) if gate == "sigmoid-mlp" else None
    output = (attached.run_block or run_block)(block, selected, scale)
    after = sequence_of(inputs.layout, output)
    return inputs.replaced(output, kernels.put_back(hidden_states, after, logits, places, gate))


def run_branch(
    block: nn.Module,
    arguments: dict[str, Any],
    logits: Tensor,
    ranking: Tensor | None,
    kept_tokens: int,
    gate: str,
    starts: Tensor | None = None,
    bypass: Tensor | None = None,
    remembers: bool = False,
) -> BlockOutput:
    """A block on the tokens that it keeps. This is the unit that is compiled; between
    kernels `run_block` is.

    Args:
        block: The host's block.
        arguments: All arguments of its forward by name.
        logits: [B, N] router scores.
        ranking: [B, N] token indices from the best to the worst; None where none is dropped.
        kept_tokens: K, 0 to N.
        gate: Name of the gate.
        starts: [B] int64, first routed row of each sample where they differ.
        bypass: [B, N, D], what is added to a token that is not kept; None for nothing.
        remembers: Whether `bypass` takes what is added to those that are kept, in place.

    Returns:
        What the bare block returns, its hidden states [B, S, D] in the dtype that it returns.
    """
    inputs = BlockInputs(bound_block(block).layout, arguments, logits.shape[1], starts)
    if kept_tokens == 0:
        return inputs.bypassed(bypass)
    if kept_tokens < inputs.tokens:
        assert ranking is not None
        indices = ranking[:, :kept_tokens]
        logits = logits.gather(1, indices)
    scale = inputs.over_rows(torch.sigmoid(logits)) if gate == "sigmoid-mlp" else None
    # 2 sigmoid(s) - 1 for the identity gate, whose gate is 2 sigmoid(s).
    excess = torch.tanh(logits / 2) if gate == "identity" else torch.sigmoid(logits) - 1

    def run(selected: dict[str, Any]) -> BlockOutput:
        return run_block(block, selected, scale)

    def gated(before: Tensor, after: Tensor) -> Tensor:
        return after if scale is not None else scale_update(before, after, excess)

    if kept_tokens == inputs.tokens:
        return inputs.run_all(run, gated)
    return inputs.run_kept(indices, run, gated, bypass, remembers)


def run_block(block: nn.Module, arguments: dict[str, Any], mlp_scale: Tensor | None) -> BlockOutput:
    """The host's forward, with its feed-forward's output times `mlp_scale` where given, [B, M], one
    for each row of the hidden states."""
    bound = bound_block(block)
    if mlp_scale is None:
        return bound.run(block, arguments)
    return bound.run_with(mlp_scale, block, arguments)


def scaled_mlp_forward(mlp: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    """Takes the place of a feed-forward's forward under the gate "sigmoid-mlp"."""
    bound = bound_part(mlp)
    output: Tensor = bound.host_forward(mlp, *args, **kwargs)
    scale: Tensor | None = bound.running
    if scale is None:
        return output
    others = output.shape[1] - scale.shape[1]
    if others:
        ones = scale.new_ones(len(scale), others)
        where = bound.owner.layout.mlp_others
        assert where != "none", "the feed-forward takes rows that its layout does not name"
        before = where == "before"
        scale = torch.cat([ones, scale] if before else [scale, ones], 1)
    return output * scale.to(output.dtype).unsqueeze(-1)
