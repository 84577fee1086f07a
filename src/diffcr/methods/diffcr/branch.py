"""A host's block on the tokens that it keeps, between tensors alone: what is compiled."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from diffcr.core.select import scale_update
from diffcr.hosts.block_inputs import BlockInputs, BlockOutput
from diffcr.methods.bound import bound_block, bound_part


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
