"""Scores, rankings, gather and put back."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from diffcr.core.select import (
    gather_tokens,
    put_back,
    rank_tokens,
    router_logits,
    scale_update,
    scattered_positions,
    token_rows,
)


@given(st.integers(1, 300), st.integers(0, 2**31))
def test_a_ranking_sorts_and_is_a_permutation(tokens: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(0, 5, (2, tokens), generator=generator).float()
    ranking = rank_tokens(logits)
    assert ranking.sort(dim=1).values.equal(torch.arange(tokens).expand(2, -1))
    ranked = logits.gather(1, ranking)
    assert (ranked[:, :-1] >= ranked[:, 1:]).all()


def test_ties_drop_tokens_all_over_the_picture() -> None:
    kept = rank_tokens(torch.zeros(1, 1024))[0, :512]
    rows = torch.bincount(kept // 32, minlength=32)
    columns = torch.bincount(kept % 32, minlength=32)
    assert rows.min() >= 12 and rows.max() <= 20
    assert columns.min() >= 8 and columns.max() <= 24


def test_put_back_overwrites_the_gathered_rows_alone() -> None:
    hidden = torch.randn(2, 7, 3)
    indices = rank_tokens(torch.randn(2, 7))[:, :4]
    rows = token_rows(indices, 7)
    updated = put_back(hidden, rows, gather_tokens(hidden, indices) + 1)
    changed = (updated != hidden).all(-1)
    assert changed.nonzero()[:, 1].view(2, 4).equal(indices.sort(dim=1).values)
    assert torch.equal(updated[changed], hidden[changed] + 1)


def test_rows_that_the_caller_has_give_the_same() -> None:
    hidden, mask = torch.randn(2, 7, 3), torch.randn(1, 1, 7)
    indices = rank_tokens(torch.randn(2, 7), scattered_positions(7, hidden.device))[:, :4]
    rows = token_rows(indices, 7)
    for values, dim in ((hidden, 1), (mask, -1)):
        given = gather_tokens(values, indices, dim, rows)
        assert torch.equal(given, gather_tokens(values, indices, dim))


def test_gather_along_the_last_dimension_of_a_shared_mask() -> None:
    mask = torch.arange(6.0).view(1, 1, 6)
    indices = torch.tensor([[0, 5], [2, 3]])
    assert gather_tokens(mask, indices, -1).tolist() == [[[0, 5]], [[2, 3]]]


def test_logits_are_full_precision_for_a_half_precision_model() -> None:
    hidden = torch.randn(1, 64, 16).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = router_logits(hidden, torch.randn(16))
    assert logits.dtype == torch.float32
    assert logits.unique().numel() == 64


def test_a_gate_of_one_is_exact() -> None:
    before, after = torch.randn(2, 5, 3) * 1e3, torch.randn(2, 5, 3)
    assert torch.equal(scale_update(before, after, torch.zeros(2, 5)), after)
