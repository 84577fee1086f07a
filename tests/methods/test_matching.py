"""Token merging against the package of its authors, and what it promises by itself."""

from __future__ import annotations

import pytest
import torch
from tomesd.merge import bipartite_soft_matching_random2d
from torch import Tensor

from diffcr.methods.tome.matching import (
    MOST_MERGED,
    draw_destinations,
    draw_destinations_among,
    match_tokens,
)


def _states(batch: int, tokens: int, width: int = 12, seed: int = 0) -> Tensor:
    return torch.randn(batch, tokens, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("merged", [1, 7, 20])
@pytest.mark.parametrize(("rows", "columns"), [(6, 6), (4, 8), (8, 4)])
def test_merge_and_unmerge_equal_tomesd(rows: int, columns: int, merged: int) -> None:
    merged = min(merged, rows * columns * 3 // 4)
    states, values = _states(3, rows * columns), _states(3, rows * columns, seed=1)
    their_merge, their_unmerge = bipartite_soft_matching_random2d(
        states, columns, rows, 2, 2, merged, no_rand=True
    )
    ours = match_tokens(states, draw_destinations(rows, columns, None), merged)
    theirs = their_merge(values, mode="mean")
    found = ours.merge(values)
    assert found.shape == theirs.shape == (3, rows * columns - merged, 12)
    # Theirs lists sources before destinations, ours the grid's order: every row occurs in both.
    distance = (found.unsqueeze(2) - theirs.unsqueeze(1)).abs().amax(-1)
    assert distance.amin(1).max() < 1e-6
    assert distance.amin(2).max() < 1e-6
    assert (ours.unmerge(found) - their_unmerge(theirs)).abs().max() < 1e-6


def test_drawn_destinations_equal_tomesd_with_the_same_draw() -> None:
    states = _states(2, 64)
    seed = 5
    merge, unmerge = bipartite_soft_matching_random2d(
        states, 8, 8, 2, 2, 16, generator=torch.Generator().manual_seed(seed)
    )
    draw = torch.randint(4, (4, 4, 1), generator=torch.Generator().manual_seed(seed))
    destinations = draw_destinations(8, 8, seed)
    expected = [
        (2 * row + int(draw[row, column]) // 2) * 8 + 2 * column + int(draw[row, column]) % 2
        for row in range(4)
        for column in range(4)
    ]
    assert destinations.tolist() == expected
    ours = match_tokens(states, destinations, 16)
    assert (ours.unmerge(ours.merge(states)) - unmerge(merge(states))).abs().max() < 1e-6


def test_nothing_merged_is_the_identity() -> None:
    states = _states(2, 16)
    merge = match_tokens(states, draw_destinations(4, 4, 0), 0)
    assert torch.equal(merge.merge(states), states)
    assert torch.equal(merge.unmerge(states), states)


def test_an_odd_grid_has_no_destination_in_its_last_row_and_column() -> None:
    destinations = draw_destinations(5, 3, 3)
    assert len(destinations) == 2
    assert all(place % 3 < 2 and place // 3 < 4 for place in destinations.tolist())
    states = _states(1, 15)
    merge = match_tokens(states, destinations, 11)
    assert merge.merge(states).shape == (1, 4, 12)


@pytest.mark.parametrize("length", range(1, 14))
@pytest.mark.parametrize("seed", [None, 0, 3])
def test_a_row_a_column_and_few_tokens_merge_as_far_as_a_grid(
    length: int, seed: int | None
) -> None:
    merged = int(MOST_MERGED * length)
    states = _states(2, length)
    drawn = [draw_destinations(1, length, seed), draw_destinations(length, 1, seed)]
    drawn.append(draw_destinations_among(torch.arange(length).expand(2, -1), 50, seed))
    for destinations in drawn:
        assert destinations.shape[-1] == max(1, length // 4)
        assert destinations.min() >= 0 and destinations.max() < length
        merge = match_tokens(states, destinations, merged)
        assert merge.merge(states).shape == (2, length - merged, 12)
        assert merge.unmerge(merge.merge(states)).isfinite().all()


def test_most_similar_tokens_are_merged_and_their_mean_comes_back() -> None:
    states = _states(1, 16)
    states[0, 5] = 3 * states[0, 0]
    merge = match_tokens(states, draw_destinations(4, 4, None), 1)
    assert 5 not in merge.kept[0].tolist()
    spread = merge.unmerge(merge.merge(states))
    assert torch.allclose(spread[0, 0], 2 * states[0, 0], atol=1e-6)
    assert torch.equal(spread[0, 0], spread[0, 5])
    others = [i for i in range(16) if i not in (0, 5)]
    assert torch.equal(spread[0, others], states[0, others])


def test_neighbours_never_change_a_matching() -> None:
    states, other = _states(2, 16), _states(2, 16, seed=9)
    destinations = draw_destinations(4, 4, 1)
    together = match_tokens(torch.cat([states[:1], other[1:]]), destinations, 6)
    alone = match_tokens(states, destinations, 6)
    assert torch.equal(together.owner[0], alone.owner[0])


def test_gradients_of_merging_agree_with_finite_differences() -> None:
    states = _states(2, 16).double()
    merge = match_tokens(states, draw_destinations(4, 4, 1), 6)
    values = _states(2, 16, 3).double().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: merge.unmerge(merge.merge(x).square()), (values,))


@pytest.mark.parametrize("seed", [None, 0, 7])
def test_among_all_tokens_of_an_even_grid_destinations_are_the_grids(seed: int | None) -> None:
    positions = torch.arange(6 * 8).expand(2, -1)
    found = draw_destinations_among(positions, 8, seed)
    assert torch.equal(found, draw_destinations(6, 8, seed).expand(2, -1))


def test_among_some_tokens_one_of_four_neighbours_is_a_destination() -> None:
    block = torch.tensor([[9, 10, 11, 12, 16, 17, 18, 19]])
    assert draw_destinations_among(block, 7, None).tolist() == [[0, 4]]
    assert draw_destinations_among(block[:, :3], 7, None).tolist() == [[0]]
    both = torch.cat([block, block + 14])
    together = match_tokens(_states(2, 8), draw_destinations_among(both, 7, 1), 3)
    alone = match_tokens(_states(2, 8)[:1], draw_destinations_among(block, 7, 1), 3)
    assert torch.equal(together.kept[:1], alone.kept) and torch.equal(
        together.owner[:1], alone.owner
    )
