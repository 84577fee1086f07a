"""From pixels to tokens and groups of samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcr.inpainting.images.masks import (
    bounds,
    dilate,
    group_by_count,
    latent_mask,
    mask_coverage,
    masked_tokens,
    resize_mask,
    token_indices,
    window_sum,
)
from tests.inpainting.hosts import box_mask


def test_one_pixel_masks_its_token() -> None:
    mask = np.zeros((16, 24), bool)
    mask[15, 8] = True
    tokens = masked_tokens(mask, 8)
    assert tokens.shape == (2, 3) and token_indices(tokens).tolist() == [4]
    assert latent_mask([tokens], 2)[0, 0].nonzero().tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]
    coverage = mask_coverage(mask, 4)
    assert coverage.shape == (1, 1, 4, 6) and coverage[0, 0, 3, 2] == 1 / 16
    assert coverage.sum() == 1 / 16


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 50), st.integers(1, 50), st.data())
def test_no_masked_pixel_is_lost_at_another_size(
    height: int, width: int, new_height: int, new_width: int, data: st.DataObject
) -> None:
    row, column = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    mask = np.zeros((height, width), bool)
    mask[row, column] = True
    resized = resize_mask(mask, new_height, new_width)
    assert resized.shape == (new_height, new_width)
    if new_height <= height and new_width <= width:
        assert resized.sum() == 1
    assert resize_mask(np.ones((height, width), bool), new_height, new_width).all()
    assert not resize_mask(np.zeros((height, width), bool), new_height, new_width).any()


@pytest.mark.parametrize("radius", [0, 1, 3, 50])
def test_dilation_and_sums_are_those_of_windows(radius: int) -> None:
    mask = np.random.default_rng(0).random((9, 13)) < 0.1
    grown, sums = dilate(mask, radius), window_sum(mask, radius)
    for row in range(9):
        for column in range(13):
            window = mask[
                max(row - radius, 0) : row + radius + 1,
                max(column - radius, 0) : column + radius + 1,
            ]
            assert grown[row, column] == window.any() and sums[row, column] == window.sum()


def test_bounds_hold_the_mask() -> None:
    assert bounds(box_mask() > 0) == (slice(12, 20), slice(12, 20))
    assert bounds(np.ones((3, 5), bool), margin=2) == (slice(0, 3), slice(0, 5))


def test_groups_hold_every_sample_once() -> None:
    indices = [torch.arange(n) for n in (3, 1, 3, 2)]
    groups = group_by_count(indices)
    assert [g.indices.shape[1] for g in groups] == [1, 2, 3]
    assert [g.samples.tolist() for g in groups] == [[1], [3], [0, 2]]
