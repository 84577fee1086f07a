"""DiffCR: the router's tokens pass through the host's block, the others bypass it (Sec. 3.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from diffcr.core.select import (
    gather_tokens,
    put_back,
    rank_tokens,
    router_logits,
    scale_update,
    token_rows,
)
from diffcr.methods.bound import BoundBlock, bound_block, bound_part
from diffcr.methods.diffcr.compressor import Compressor
from diffcr.methods.diffcr.config import RoutedConfig
from diffcr.methods.diffcr.gpu import kernels_for
from diffcr.methods.diffcr.plans import RegionPlan
from diffcr.methods.seam import Seam


def routed_seam(config: RoutedConfig) -> Seam:
    """Every block, and its feed-forward where the gate scales that alone."""
    parts = ["mlp"] if config.gate == "sigmoid-mlp" else []
    return Seam(routed_forward, dict.fromkeys(parts, scaled_mlp_forward))


def routed_forward(block: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    """Takes the place of a block's forward; same arguments, same return value."""
    bound: BoundBlock[Compressor] = bound_block(block)
    arguments = bound.name_arguments(args, kwargs)
    if not bound.attached.enabled:
        return bound.host_forward(block, **arguments)
    context = bound.attached.context
    ranking = context.rankings.get(bound.layer)
    if len(context.regions) == 1:
        return _run_region(block, bound, arguments, context.regions[0], ranking)
    return _run_mixed_regions(block, bound, arguments, context.regions, ranking)


def _run_mixed_regions(
    block: nn.Module,
    bound: BoundBlock[Compressor],
    arguments: dict[str, Any],
    regions: tuple[RegionPlan, ...],
    ranking: Tensor | None,
) -> Tensor:
    outputs, places = [], []
    for region in regions:
        assert region.samples is not None
        held = None if ranking is None else ranking.index_select(0, region.samples)
        selected = bound.layout.select_samples(arguments, region.samples)
        outputs.append(_run_region(block, bound, selected, region, held))
        places.append(region.samples)
    # A region whose layer is skipped keeps its input's dtype; concatenation promotes it.
    return torch.cat(outputs)[torch.argsort(torch.cat(places))]


def _run_region(
    block: nn.Module,
    bound: BoundBlock[Compressor],
    arguments: dict[str, Any],
    region: RegionPlan,
    ranking: Tensor | None,
) -> Tensor:
    plan = region.layers[bound.layer]
    hidden_states: Tensor = arguments[bound.layout.hidden_states]
    kernels = kernels_for(hidden_states)
    if kernels is not None or bound.attached.run_branch is not None:
        # A compiled branch guards strides: a first layer with others would add graphs of its own.
        hidden_states = hidden_states.contiguous()
        arguments[bound.layout.hidden_states] = hidden_states
    if kernels is not None and ranking is None and plan.weight is None:
        return _run_with_kernels(kernels, block, bound, arguments, plan.kept_tokens)
    logits = router_logits(hidden_states, bound.attached.routers[bound.group][bound.row])
    if ranking is None and plan.drops(hidden_states.shape[1]):
        ranking = rank_tokens(logits, bound.attached.context.scattered)
    if plan.weight is not None and plan.mixed_kept_tokens is None:
        # A zero that keeps the ratio in the graph, on the smallest tensor of the branch.
        logits = logits + plan.weight.to(logits.dtype)
    run = bound.attached.run_branch or run_branch
    gate = bound.attached.config.gate
    output = run(block, arguments, logits, ranking, plan.kept_tokens, gate)
    if plan.mixed_kept_tokens is None:
        return output
    assert plan.weight is not None
    mixed = run(block, arguments, logits, ranking, plan.mixed_kept_tokens, gate)
    return torch.lerp(output, mixed.to(output.dtype), plan.weight.to(output.dtype))


def _run_with_kernels(
    kernels: Any,
    block: nn.Module,
    bound: BoundBlock[Compressor],
    arguments: dict[str, Any],
    kept_tokens: int,
) -> Tensor:
    """What `run_branch` and the lines before it do, with the kernels around the block."""
    attached, layout, gate = bound.attached, bound.layout, bound.attached.config.gate
    hidden_states: Tensor = arguments[layout.hidden_states]
    if kept_tokens == 0:
        return hidden_states
    logits = kernels.score(hidden_states, attached.routers[bound.group][bound.row])
    if kept_tokens == hidden_states.shape[1]:
        run = attached.run_branch or run_branch
        return run(block, arguments, logits, None, kept_tokens, gate)
    ranking, places = kernels.rank(logits, attached.context.scattered)
    indices = ranking[:, :kept_tokens]
    before = kernels.gather(hidden_states, ranking, kept_tokens)
    selected = layout.with_tokens(arguments, before, indices)
    scale = torch.sigmoid(logits.gather(1, indices)) if gate == "sigmoid-mlp" else None
    after = (attached.run_block or run_block)(block, selected, scale)
    updated: Tensor = kernels.put_back(hidden_states, after, logits, places, gate)
    return updated


def run_branch(
    block: nn.Module,
    arguments: dict[str, Any],
    logits: Tensor,
    ranking: Tensor | None,
    kept_tokens: int,
    gate: str,
) -> Tensor:
    """A block on the tokens that it keeps. This is the unit that is compiled; between
    kernels `run_block` is.

    Args:
        block: The host's block.
        arguments: All arguments of its forward by name.
        logits: [B, N] router scores.
        ranking: [B, N] token indices from the best to the worst; None where none is dropped.
        kept_tokens: K, 0 to N.
        gate: Name of the gate.

    Returns:
        [B, N, D] in the dtype that the bare block returns.
    """
    layout = bound_block(block).layout
    hidden_states: Tensor = arguments[layout.hidden_states]
    if kept_tokens == 0:
        return hidden_states
    if kept_tokens == hidden_states.shape[1]:
        return _gated(block, arguments, hidden_states, logits, gate)
    assert ranking is not None
    indices = ranking[:, :kept_tokens]
    rows = token_rows(indices, hidden_states.shape[1])
    before = gather_tokens(hidden_states, indices, rows=rows)
    selected = layout.with_tokens(arguments, before, indices)
    after = _gated(block, selected, before, logits.gather(1, indices), gate)
    return put_back(hidden_states, rows, after)


def _gated(
    block: nn.Module, arguments: dict[str, Any], before: Tensor, logits: Tensor, gate: str
) -> Tensor:
    if gate == "sigmoid-mlp":
        return run_block(block, arguments, torch.sigmoid(logits))
    # 2 sigmoid(s) - 1 for the identity gate, whose gate is 2 sigmoid(s).
    excess = torch.tanh(logits / 2) if gate == "identity" else torch.sigmoid(logits) - 1
    return scale_update(before, run_block(block, arguments, None), excess)


def run_block(block: nn.Module, arguments: dict[str, Any], mlp_scale: Tensor | None) -> Tensor:
    """The host's forward, with its feed-forward's output times `mlp_scale` [B, K] where given."""
    bound = bound_block(block)
    if mlp_scale is None:
        return bound.host_forward(block, **arguments)
    return bound.run_with(mlp_scale, block, arguments)


def scaled_mlp_forward(mlp: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    """Takes the place of a feed-forward's forward under the gate "sigmoid-mlp"."""
    bound = bound_part(mlp)
    output = bound.host_forward(mlp, *args, **kwargs)
    scale: Tensor | None = bound.running
    return output if scale is None else output * scale.to(output.dtype).unsqueeze(-1)
