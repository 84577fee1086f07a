"""What a sampling run remembers of its tokens, and when it ends."""

from __future__ import annotations

import torch

from diffcr.core.select import token_rows
from diffcr.methods.reuse.trajectory import KeptTokens, Remembered, Trajectory


def test_tokens_that_are_not_computed_follow_a_share_of_the_others_mean_change() -> None:
    indices = torch.tensor([[0, 2]])
    shares = torch.tensor([[[0.5, 0.0, 0.5, 0.0]]])
    kept = KeptTokens(indices, token_rows(indices, 4), shares)
    before = torch.tensor([[[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]]])
    for drift in (0.0, 0.25, 1.0):
        computed = before[:, [0, 2]] + torch.tensor([[[1.0, 2.0], [3.0, 6.0]]])
        with torch.no_grad():
            rows = Remembered(before).take(computed, kept, drift)
        expected = before + drift * torch.tensor([2.0, 4.0])
        expected[:, [0, 2]] = computed
        torch.testing.assert_close(rows, expected)


def test_a_run_goes_on_where_its_noise_falls() -> None:
    run = Trajectory(noise_level=0.5, conditioned=2)
    assert run.goes_on(0.4, 2)
    assert not run.goes_on(0.5, 2) and not run.goes_on(0.6, 2) and not run.goes_on(0.4, 3)
