"""Page rank over attention, and the tokens that stand in for pruned ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from diffcr.methods.at_edm.page_rank import page_rank, stand_ins


def _attention(batch: int = 2, heads: int = 3, tokens: int = 10, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, heads, tokens, tokens, generator=generator).mul(2).softmax(-1)


def test_page_rank_settles_at_the_stationary_distribution() -> None:
    attention = _attention(batch=1)
    importance = page_rank(attention, 60)[0]
    per_head = []
    for head in attention[0].double().numpy():
        values, vectors = np.linalg.eig(head.T)
        stationary = np.abs(np.real(vectors[:, np.argmax(np.real(values))]))
        per_head.append(stationary / stationary.sum())
    expected = np.sqrt(np.mean(np.square(per_head), axis=0))
    assert np.abs(importance.numpy() - expected).max() < 1e-5
    few = page_rank(attention, 10)[0]
    assert ((few - importance).abs() / importance).max() < 1e-2


def test_a_token_that_all_look_at_is_the_most_important() -> None:
    attention = torch.full((1, 1, 5, 5), 0.1)
    attention[..., 3] = 0.6
    assert page_rank(attention, 1).argmax() == 3


def test_stand_ins_are_the_most_attended_kept_tokens() -> None:
    attention = _attention()
    kept = torch.tensor([[1, 4, 7], [0, 2, 9]])
    places = stand_ins(attention, kept)
    mean = attention.mean(1)
    for sample in range(2):
        for token in range(10):
            chosen = int(kept[sample, places[sample, token]])
            if token in kept[sample].tolist():
                assert chosen == token
            else:
                expected = max(kept[sample].tolist(), key=lambda k: float(mean[sample, token, k]))
                assert chosen == expected


@pytest.mark.parametrize("sample", [0, 1])
def test_neighbours_change_nothing(sample: int) -> None:
    attention, other = _attention(), _attention(seed=4)
    mixed = other.clone()
    mixed[sample] = attention[sample]
    assert torch.equal(page_rank(mixed, 5)[sample], page_rank(attention, 5)[sample])
