"""Which tokens a block computes: score, rank, gather, put back (Sec. 3.2).

Shapes: B samples, N tokens of a sample, D width, K kept tokens.
"""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor

_GOLDEN_RATIO = 0.6180339887498949


def router_logits(hidden_states: Tensor, router: Tensor) -> Tensor:
    """Score of every token, `s = x @ w`.

    At least float32 whatever the model computes in: in bfloat16, and after a sigmoid, hundreds of
    tokens tie and their order would be an accident.

    Args:
        hidden_states: [B, N, D], any floating dtype.
        router: [D].

    Returns:
        [B, N], float32 or float64.
    """
    with torch.autocast(hidden_states.device.type, enabled=False):
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        return torch.matmul(hidden_states.to(dtype), router.to(dtype))


def rank_tokens(logits: Tensor) -> Tensor:
    """Token indices of each sample from the highest score to the lowest.

    Equal scores are ordered by a fixed permutation that scatters positions over the picture. An
    untrained router scores every token 0, and position order would drop whole rows.

    Args:
        logits: [B, N].

    Returns:
        [B, N] int64, a permutation of 0..N-1 in each row.
    """
    tokens = logits.shape[1]
    positions = torch.arange(tokens, device=logits.device)
    scattered = (positions * _coprime_stride(tokens)) % tokens
    order = torch.argsort(logits.detach()[:, scattered], dim=1, descending=True, stable=True)
    return scattered[order]


def _coprime_stride(tokens: int) -> int:
    stride = max(1, round(tokens * _GOLDEN_RATIO))
    while gcd(stride, tokens) != 1:
        stride += 1
    return stride


def kept_indices(ranking: Tensor, kept: int) -> Tensor:
    """The first `kept` tokens of a ranking [B, N], in ascending position: [B, K] int64."""
    return ranking[:, :kept].sort(dim=1).values


def gather_tokens(values: Tensor, indices: Tensor, dim: int = 1) -> Tensor:
    """Rows of `values` along its token dimension, per sample.

    Args:
        values: Batch first, N along `dim`, any further dimensions; a batch of 1 is broadcast.
        indices: [B, K] int64.
        dim: Token dimension, negative counts from the end.

    Returns:
        `values` with K in place of N along `dim`.
    """
    rows = values.expand(indices.shape[0], *values.shape[1:]).movedim(dim, 1)
    kept = rows.flatten(0, 1).index_select(0, _flat_rows(indices, rows.shape[1]))
    gathered: Tensor = kept.unflatten(0, indices.shape).movedim(1, dim)
    return gathered


def put_back(hidden_states: Tensor, indices: Tensor, updated: Tensor) -> Tensor:
    """`hidden_states` [B, N, D] with the rows at `indices` [B, K] replaced by `updated` [B, K, D].

    The dtype is that of `updated`, which is the bare block's. Overwriting, never additive:
    inductor differentiated additive forms wrongly on the CPU (torch 2.13).
    """
    rows = hidden_states.to(updated.dtype).flatten(0, 1)
    flat = _flat_rows(indices, hidden_states.shape[1])
    return rows.index_copy(0, flat, updated.flatten(0, 1)).view_as(hidden_states)


def _flat_rows(indices: Tensor, tokens: int) -> Tensor:
    """Rows of the flattened [B N, ...], [B K]: whole rows move several times as fast as through
    an index of every single value."""
    first = torch.arange(indices.shape[0], device=indices.device) * tokens
    return (indices + first.unsqueeze(1)).flatten()


def scale_update(before: Tensor, after: Tensor, gate: Tensor) -> Tensor:
    """`before + gate * (after - before)`, exactly `after` where the gate is 1.

    Args:
        before, after: [B, K, D], the tokens before and after the block.
        gate: [B, K], float32 or float64.

    Returns:
        [B, K, D] in the dtype of `after`.
    """
    excess = (gate - 1).to(after.dtype).unsqueeze(-1)
    return torch.addcmul(after, excess, after - before.to(after.dtype))
