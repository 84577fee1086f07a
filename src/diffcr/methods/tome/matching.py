"""Bipartite soft matching of tokens (ToMe, arXiv 2303.17604): who is merged into whom.

Shapes: B samples, N = rows * columns tokens, M merged away, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from diffcr.core.select import gather_tokens

_CELL = 2
MOST_MERGED = 0.75


@dataclass(frozen=True)
class TokenMerge:
    """A matching of N tokens that leaves N - M.

    Attributes:
        kept: [B, N - M] int64, the tokens that stay, ascending.
        owner: [B, N] int64, place in `kept` of the token that a token belongs to; a kept token's
            own.
    """

    kept: Tensor
    owner: Tensor

    def of_samples(self, samples: Tensor) -> TokenMerge:
        """That of some samples, [B'] int64."""
        return TokenMerge(self.kept.index_select(0, samples), self.owner.index_select(0, samples))

    def merge(self, tokens: Tensor) -> Tensor:
        """Mean of each kept token with those merged into it: [B, N, D] to [B, N - M, D]."""
        places = self.owner.unsqueeze(-1).expand_as(tokens)
        merged = tokens.new_zeros(*self.kept.shape, tokens.shape[-1])
        return merged.scatter_reduce(1, places, tokens, "mean", include_self=False)

    def unmerge(self, merged: Tensor) -> Tensor:
        """Every token gets its owner's row: [B, N - M, D] to [B, N, D]."""
        return gather_tokens(merged, self.owner)


def draw_destinations(rows: int, columns: int, seed: int | None) -> Tensor:
    """Positions of the destination tokens, one in each whole cell of 2 x 2 of the grid; in a single
    row or column one in each run of four.

    Args:
        rows: Of the grid; an odd last row holds no destination.
        columns: Of the grid, likewise.
        seed: Of the place inside of each cell; None takes the first of every cell.

    Returns:
        [cells] int64 on the CPU, positions row by row.
    """
    if min(rows, columns) == 1:
        return draw_destinations_among(torch.arange(rows * columns)[None], columns, seed)[0]
    down, across = rows // _CELL, columns // _CELL
    if seed is None:
        place = torch.zeros(down, across, dtype=torch.int64)
    else:
        generator = torch.Generator().manual_seed(seed)
        place = torch.randint(_CELL**2, (down, across), generator=generator)
    row = torch.arange(down).unsqueeze(1) * _CELL + place // _CELL
    column = torch.arange(across) * _CELL + place % _CELL
    return (row * columns + column).flatten()


def draw_destinations_among(positions: Tensor, columns: int, seed: int | None) -> Tensor:
    """Destination tokens where a sample holds some of a grid's tokens alone.

    Its tokens are ordered cell of 2 x 2 by cell, and every run of four of them holds one
    destination. Where all tokens of a grid with even sides are there, the runs are the cells and
    the destinations those of `draw_destinations`.

    Args:
        positions: [B, K] int64, places of a sample's tokens on the grid, row by row.
        columns: Of the grid.
        seed: Of the place inside of each run; None takes the first of every run.

    Returns:
        [B, K // 4] int64 on the device of `positions`, places among the K tokens; at least one.
    """
    row, column = positions // columns, positions % columns
    cell = row // _CELL * -(-columns // _CELL) + column // _CELL
    inside = row % _CELL * _CELL + column % _CELL
    order = (cell * _CELL**2 + inside).argsort(dim=1)
    tokens = positions.shape[1]
    runs = max(1, tokens // _CELL**2)
    place = torch.zeros(runs, dtype=torch.int64)
    if seed is not None:
        inside_of_run = min(_CELL**2, tokens)
        place = torch.randint(inside_of_run, (runs,), generator=torch.Generator().manual_seed(seed))
    return order[:, (torch.arange(runs) * _CELL**2 + place).to(order.device)]


def match_tokens(states: Tensor, destinations: Tensor, merged: int) -> TokenMerge:
    """Merge the `merged` sources that are most similar to a destination into it.

    Similarity is the cosine; no gradient passes.

    Args:
        states: [B, N, D], what tokens are compared by.
        destinations: [cells] int64, as `draw_destinations` gives them, or each sample's own,
            [B, cells].
        merged: M, from 0 to N less the destinations.
    """
    batch, tokens = states.shape[:2]
    destinations = destinations.to(states.device).expand(batch, -1)
    count = tokens - destinations.shape[1]
    assert 0 <= merged <= count, "more tokens to merge than there are sources"
    everywhere = torch.ones(batch, tokens, dtype=torch.int64, device=states.device)
    sources = _first(everywhere.scatter(1, destinations, 0), count)
    direction = functional.normalize(states.detach(), dim=-1)
    leavers, stayers = (gather_tokens(direction, places) for places in (sources, destinations))
    best = (leavers @ stayers.transpose(1, 2)).max(-1)
    chosen = best.values.argsort(dim=-1, descending=True, stable=True)[:, :merged]
    leaving = sources.gather(1, chosen)
    target = destinations.gather(1, best.indices.gather(1, chosen))
    stays = everywhere.scatter(1, leaving, 0)
    place = stays.cumsum(1) - 1
    owner = place.scatter(1, leaving, place.gather(1, target))
    return TokenMerge(_first(stays, tokens - merged), owner)


def _first(marks: Tensor, count: int) -> Tensor:
    """Positions of the `count` ones among zeros and ones [..., N], ascending; the shape is known
    without looking at values, which an accelerator would have to be waited for."""
    return marks.argsort(dim=-1, descending=True, stable=True)[..., :count]
