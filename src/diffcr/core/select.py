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
    # The meta device has no autocast of its own.
    device = "cpu" if hidden_states.is_meta else hidden_states.device.type
    dtype = torch.promote_types(hidden_states.dtype, torch.float32)
    tokens, weights = hidden_states.to(dtype), router.to(dtype)
    if not torch.is_autocast_enabled(device):
        return torch.matmul(tokens, weights)
    with torch.autocast(device, enabled=False):
        return torch.matmul(tokens, weights)


def scattered_positions(tokens: int, device: torch.device) -> Tensor:
    """A fixed permutation of 0..N-1, [N] int64, whose beginnings lie all over the picture."""
    return (torch.arange(tokens, device=device) * _coprime_stride(tokens)) % tokens


def rank_tokens(logits: Tensor, scattered: Tensor | None = None) -> Tensor:
    """Token indices of each sample from the highest score to the lowest.

    Equal scores are in the order of `scattered_positions`. An untrained router scores every token
    0, and position order would drop whole rows.

    Args:
        logits: [B, N].
        scattered: `scattered_positions` of N tokens, where the caller has them already.

    Returns:
        [B, N] int64, a permutation of 0..N-1 in each row.
    """
    if scattered is None:
        scattered = scattered_positions(logits.shape[1], logits.device)
    scores = logits.detach().index_select(1, scattered)
    return scattered.take(torch.argsort(scores, dim=1, descending=True, stable=True))


def _coprime_stride(tokens: int) -> int:
    stride = max(1, round(tokens * _GOLDEN_RATIO))
    while gcd(stride, tokens) != 1:
        stride += 1
    return stride


def gather_tokens(
    values: Tensor, indices: Tensor, dim: int = 1, rows: Tensor | None = None
) -> Tensor:
    """Rows of `values` along its token dimension, per sample.

    Args:
        values: Batch first, N along `dim`, any further dimensions; a batch of 1 is broadcast.
        indices: [B, K] int64.
        dim: Token dimension, negative counts from the end.
        rows: `token_rows` of the indices, where the caller has them already.

    Returns:
        `values` with K in place of N along `dim`.
    """
    samples = values.expand(indices.shape[0], *values.shape[1:])
    if dim != 1:
        samples = samples.movedim(dim, 1)
    rows = token_rows(indices, samples.shape[1]) if rows is None else rows
    kept = samples.flatten(0, 1).index_select(0, rows).view(*indices.shape, *samples.shape[2:])
    return kept if dim == 1 else kept.movedim(1, dim)


def put_back(hidden_states: Tensor, rows: Tensor, updated: Tensor, owned: bool = False) -> Tensor:
    """`hidden_states` [B, N, D] with the tokens at `rows`, `token_rows` of indices [B, K], replaced
    by `updated` [B, K, D].

    The dtype is that of `updated`, which is the bare block's. Overwriting, never additive:
    inductor differentiated additive forms wrongly on the CPU (torch 2.13). Without gradients
    `hidden_states` may be written to where they are `owned`, nobody else's.
    """
    everything, tokens = hidden_states.to(updated.dtype).flatten(0, 1), updated.flatten(0, 1)
    if owned and not torch.is_grad_enabled():
        everything.index_copy_(0, rows, tokens)
    else:
        everything = everything.index_copy(0, rows, tokens)
    return everything.view_as(hidden_states)


def token_rows(indices: Tensor, tokens: int) -> Tensor:
    """Places of `indices` [B, K] in the flattened [B N, ...], [B K]: whole rows move several times
    as fast as through an index of every single value."""
    if indices.shape[0] == 1:
        return indices.flatten()
    first = torch.arange(indices.shape[0], device=indices.device) * tokens
    return (indices + first.unsqueeze(1)).flatten()


def scale_update(before: Tensor, after: Tensor, excess: Tensor) -> Tensor:
    """`before + (1 + excess) * (after - before)`, exactly `after` where the excess is 0.

    Args:
        before, after: [B, K, D], the tokens before and after the block.
        excess: [B, K], float32 or float64: the gate less 1, which half precision can tell from 0.

    Returns:
        [B, K, D] in the dtype of `after`.
    """
    share = excess.to(after.dtype).unsqueeze(-1)
    change = after - before.to(after.dtype)
    # On a CPU memory that is touched first takes longer than the arithmetic.
    reused = None if torch.is_grad_enabled() else change
    return torch.addcmul(after, share, change, out=reused)
