"""Bins, bracketing, rounding."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffcr.core.regions import region_of
from diffcr.methods.diffcr.ratios import bounded, bracket, kept_tokens, ratio_loss, snap_bins

RATIOS = st.integers(0, 90_000).map(lambda i: float(torch.tensor(i / 100_000)))
TABLES = st.integers(1, 6).flatmap(
    lambda regions: st.lists(
        st.lists(RATIOS, min_size=regions, max_size=regions), min_size=1, max_size=12
    )
)


@given(st.integers(1, 5000), st.integers(0, 10))
def test_kept_tokens_is_the_exact_ceiling(tokens: int, bin_index: int) -> None:
    assert kept_tokens(tokens, bin_index) == ceil(tokens * (1 - Fraction(bin_index, 10)))


def test_kept_tokens_of_a_ratio_that_floating_point_gets_wrong() -> None:
    assert kept_tokens(10, 7) == 3


@given(RATIOS, st.integers(1, 10))
def test_a_bracket_holds_its_ratio(ratio: float, max_bin: int) -> None:
    ratio = min(ratio, max_bin / 10)
    around = bracket(ratio, max_bin)
    assert 0 <= around.bin < max_bin
    assert 0 <= around.position <= 1
    assert (around.bin + around.position) / 10 == pytest.approx(ratio, abs=1e-5)


@pytest.mark.parametrize("bin_index", range(9))
def test_on_a_bin_the_interval_to_its_right_is_taken(bin_index: int) -> None:
    for ratio in (bin_index / 10, float(torch.tensor(bin_index / 10))):
        assert bracket(ratio, 9).bin == bin_index
        assert bracket(ratio, 9).position == pytest.approx(0, abs=1e-5)


def test_at_the_maximum_the_interval_to_its_left_is_taken() -> None:
    assert bracket(0.9, 9).bin == 8
    assert bracket(0.9, 9).position == pytest.approx(1)


@given(TABLES)
def test_snapped_bins_are_neighbours_and_keep_the_mean(table: list[list[float]]) -> None:
    bins = snap_bins(table, 9)
    ratios = [c for row in table for c in row]
    flat = [b for row in bins for b in row]
    assert all(
        abs(b / 10 - c) < 0.1 + 1e-6 and 0 <= b <= 9 for b, c in zip(flat, ratios, strict=True)
    )
    drift = abs(sum(flat) / 10 - sum(ratios)) / len(flat)
    assert drift <= max(0.002, 0.05 / len(flat)) + 1e-6


@given(st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=4), min_size=1, max_size=8))
def test_ratios_on_bins_stay(bins: list[list[int]]) -> None:
    table = [[float(torch.tensor(b / 10)) for b in row] for row in bins]
    assert snap_bins(table, 9) == bins


def test_a_tie_goes_to_the_lower_bin_and_the_flip_to_the_nearest_tie() -> None:
    assert snap_bins([[0.25]], 9) == [[2]]
    # The sum rounds up by 8.09 tenths, of which 20 entries may keep 1: eight are flipped.
    ratios = [[0.16] * 19 + [0.151]]
    assert snap_bins(ratios, 9)[0].count(1) == 8
    assert snap_bins(ratios, 9)[0][-1] == 1


@pytest.mark.parametrize("regions", [1, 2, 4, 10])
def test_regions_split_the_timesteps_evenly(regions: int) -> None:
    counts = [0] * regions
    for timestep in range(1000):
        counts[region_of(timestep / 1000, regions)] += 1
    assert counts == [1000 // regions] * regions
    assert region_of(1.0, regions) == regions - 1


def test_ratio_loss_is_over_the_whole_table() -> None:
    ratios = torch.tensor([[0.1, 0.3], [0.0, 0.2]], requires_grad=True)
    loss = ratio_loss(ratios, 0.3)
    loss.backward()
    assert loss.item() == pytest.approx(0.15**2)
    assert ratios.grad is not None
    assert torch.allclose(ratios.grad, torch.full((2, 2), 2 * -0.15 / 4))


def test_bounded_passes_only_gradients_that_lead_back_in() -> None:
    ratios = torch.tensor([-0.1, -0.1, 0.5, 1.0, 1.0], requires_grad=True)
    bounded(ratios, 0.9).backward(torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0]))
    assert ratios.grad is not None
    assert ratios.grad.tolist() == [0, -1, 1, 1, 0]
