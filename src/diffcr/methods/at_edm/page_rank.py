"""Which tokens matter by a self-attention map, and what stands in for the others (AT-EDM).

Shapes: B samples, H heads, N tokens, K kept ones.
"""

from __future__ import annotations

import torch
from torch import Tensor


def page_rank(attention: Tensor, iterations: int) -> Tensor:
    """Importance of every token in the graph whose edges are attention (arXiv 2405.05252, Sec. 3).

    Starting evenly, a token hands its importance on to those that it attends to, until it settles;
    a token that important tokens look at is important. Heads are joined by their root mean square.

    Args:
        attention: [B, H, N, N], rows are queries and sum to 1.
        iterations: At least 1.

    Returns:
        [B, N] float32, positive.
    """
    weights = attention.detach().float()
    tokens = weights.shape[-1]
    importance = weights.new_full((*weights.shape[:2], 1, tokens), 1 / tokens)
    for _ in range(iterations):
        importance = importance @ weights
        importance = importance / importance.sum(-1, keepdim=True)
    return importance.squeeze(2).square().mean(1).sqrt()


def stand_ins(attention: Tensor, kept: Tensor) -> Tensor:
    """For every token the kept one that it attends to most, mean over heads; a kept token itself.

    Args:
        attention: [B, H, N, N], rows are queries.
        kept: [B, K] int64, positions of the kept tokens.

    Returns:
        [B, N] int64, places in `kept`.
    """
    to_kept = (
        attention.detach().mean(1).gather(2, kept.unsqueeze(1).expand(-1, attention.shape[-1], -1))
    )
    places = torch.arange(kept.shape[1], device=kept.device).expand_as(kept)
    return to_kept.argmax(-1).scatter(1, kept, places)
