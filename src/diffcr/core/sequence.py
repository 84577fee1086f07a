"""Routed tokens as a part of a longer sequence, whose other rows are pinned: always computed.

Shapes: B samples, S rows of the sequence, N routed tokens, K kept ones, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from diffcr.core.select import gather_tokens, put_back, token_rows

Where = Literal["all", "first", "last", "per-sample"]


def routed_rows(sequence: Tensor, tokens: int, where: Where, starts: Tensor | None) -> Tensor:
    """The routed tokens [B, N, D] of a sequence [B, S, D].

    Args:
        sequence: With the routed tokens side by side.
        tokens: N.
        where: They are: the whole sequence, its beginning, its end, or from another row in every
            sample.
        starts: That row, [B] int64; None unless `where` is "per-sample".
    """
    assert tokens == sequence.shape[1] if where == "all" else tokens <= sequence.shape[1]
    if tokens == sequence.shape[1]:
        return sequence
    if where == "per-sample":
        return gather_tokens(sequence, _span(tokens, starts))
    return sequence[:, -tokens:] if where == "last" else sequence[:, :tokens]


def with_routed_rows(
    sequence: Tensor, routed: Tensor, where: Where, starts: Tensor | None
) -> Tensor:
    """A sequence [B, S, D] with `routed` [B, N, D] for its routed tokens."""
    tokens, length = routed.shape[1], sequence.shape[1]
    if where == "per-sample":
        return put_back(sequence, token_rows(_span(tokens, starts), length), routed)
    if tokens == length:
        return routed
    if where == "last":
        return torch.cat([sequence[:, :-tokens].to(routed.dtype), routed], 1)
    return torch.cat([routed, sequence[:, tokens:].to(routed.dtype)], 1)


def with_pinned_rows(
    indices: Tensor, length: int, tokens: int, where: Where, starts: Tensor | None
) -> Tensor:
    """Rows of a sequence of S, [B, S - N + K] int64: the kept tokens and all pinned rows.

    Pinned rows keep their order. They are behind the kept tokens where those are first in the
    sequence, otherwise before them.

    Args:
        indices: [B, K] int64, places of the kept tokens among the N routed ones.
        length: S.
        tokens: N.
        where: As in `routed_rows`.
        starts: As in `routed_rows`.
    """
    if length == tokens:
        return indices
    pinned = torch.arange(length - tokens, device=indices.device).expand(len(indices), -1)
    if where == "first":
        return torch.cat([indices, pinned + tokens], 1)
    if where == "last":
        return torch.cat([pinned, indices + (length - tokens)], 1)
    assert starts is not None
    first = starts.unsqueeze(1)
    return torch.cat([pinned + tokens * (pinned >= first), indices + first], 1)


def _span(tokens: int, starts: Tensor | None) -> Tensor:
    assert starts is not None
    return starts.unsqueeze(1) + torch.arange(tokens, device=starts.device)
