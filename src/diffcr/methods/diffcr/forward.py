"""DiffCR: the router's tokens pass through the host's block, the others bypass it (Sec. 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from diffcr.core.select import router_logits
from diffcr.errors import DiffCRError
from diffcr.hosts.block_inputs import (
    BlockInputs,
    BlockOutput,
    combined,
    concatenated,
    reordered,
    sequence_of,
)
from diffcr.hosts.layout import BlockLayout
from diffcr.methods.bound import BoundBlock, bound_block
from diffcr.methods.diffcr.branch import run_block, run_branch, scaled_mlp_forward
from diffcr.methods.diffcr.bypass import mapped
from diffcr.methods.diffcr.compressor import Compressor
from diffcr.methods.diffcr.config import RoutedConfig
from diffcr.methods.diffcr.gpu import kernels_for
from diffcr.methods.diffcr.kept_updates import UpdateRun
from diffcr.methods.diffcr.plans import LayerPlan, RegionPlan
from diffcr.methods.diffcr.scores import ScoredBy, TokenScores
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
    if routed.shape[1] != inputs.tokens:
        raise DiffCRError(
            f"{bound.group} were given {routed.shape[1]} tokens where the family's grid has "
            f"{inputs.tokens}: mend its `grid`, or its layout's `rows`"
        )
    bypass = None
    if attached.linear_bypass is not None and plan.bypasses(inputs.tokens):
        maps = attached.linear_bypass.of_block(bound.group, bound.row)
        bypass = mapped(maps, region.region, routed)
    alone = inputs.layout.shares_tables and len(routed) > 1 and plan.drops(inputs.tokens)
    whole = inputs.tokens == inputs.sequence.shape[1] and not alone
    takes_kernels = ranking is None and plan.weight is None and bypass is None
    if kernels is not None and whole and takes_kernels:
        return _run_with_kernels(kernels, block, bound, inputs, region)
    scores = _scores(bound, routed, region.region, router_logits)
    logits = scores.logits
    if ranking is None and plan.drops(inputs.tokens):
        ranking = scores.ranked(attached.context.scattered)
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
    scores = _scores(bound, routed, attached.context.regions[0].region, router_logits)
    logits = scores.logits
    if ranking is None:
        ranking = scores.ranked(attached.context.scattered)
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


def _scores(
    bound: BoundBlock[Compressor],
    routed: Tensor,
    region: int,
    score: Callable[[Tensor, Tensor], Tensor],
) -> TokenScores:
    """What the router says of tokens [B, N, D], or said before an earlier layer that shares it."""
    attached, shared = bound.attached, bound.attached.context.scores
    router, every = attached.router(bound.group, bound.row), attached.config.route_every
    with_gradients = torch.is_grad_enabled()
    if every == 1:
        return TokenScores(score(routed, router), with_gradients)
    place = bound.row % every
    key = ScoredBy(bound.group, bound.row - place, region)
    if place == 0 or key not in shared:
        shared[key] = TokenScores(score(routed, router), with_gradients)
    scores = shared[key]
    # Its forward runs without, and backward of the other layers cannot reach what was scored there.
    if with_gradients and router.requires_grad and not scores.with_gradients:
        raise DiffCRError(
            "gradient checkpointing with use_reentrant=True loses the gradient of a router that "
            "several layers share (route_every): take use_reentrant=False, or route_every=1"
        )
    return scores


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
    region: RegionPlan,
) -> BlockOutput:
    """What `run_branch` and the lines before it do, with the kernels around the block."""
    attached, gate = bound.attached, bound.attached.config.gate
    hidden_states, kept_tokens = inputs.sequence, region.layers[bound.layer].kept_tokens
    if kept_tokens == 0:
        return inputs.unchanged
    scores = _scores(bound, hidden_states, region.region, kernels.score)
    logits = scores.logits
    if kept_tokens == inputs.tokens:
        return _run_together(block, bound, inputs, logits, None, kept_tokens)
    ranking, places = scores.placed(kernels, attached.context.scattered)
    indices = ranking[:, :kept_tokens]
    before = kernels.gather(hidden_states, ranking, kept_tokens)
    selected = inputs.at_rows(indices, before)
    scale = torch.sigmoid(logits.gather(1, indices)) if gate == "sigmoid-mlp" else None
    output = (attached.run_block or run_block)(block, selected, scale)
    after = sequence_of(inputs.layout, output)
    return inputs.replaced(output, kernels.put_back(hidden_states, after, logits, places, gate))
