"""Masks to train with."""

from __future__ import annotations

import numpy as np
import pytest

from diffcr.inpainting.images.masks import masked_tokens
from diffcr.inpainting.images.random_masks import draw_mask, grow_region


def test_masks_are_of_several_kinds_and_never_empty() -> None:
    objects = np.zeros((96, 96), dtype=bool)
    objects[20:40, 30:60] = True
    areas, around_objects = [], 0
    for seed in range(300):
        mask = draw_mask(np.random.default_rng(seed), 96, objects)
        assert mask.shape == (96, 96) and mask.dtype == bool and mask.any()
        areas.append(mask.mean())
        around_objects += bool(mask[objects].all()) and areas[-1] < 0.3
    assert min(areas) < 0.06 and max(areas) == 1
    assert 0.05 < np.mean(np.array(areas) == 1) < 0.16
    assert 80 < around_objects < 150


@pytest.mark.parametrize("objects", [None, np.zeros((32, 32), dtype=bool)])
def test_without_objects_the_other_kinds_are_drawn(objects: np.ndarray | None) -> None:  # type: ignore[type-arg]
    masks = [draw_mask(np.random.default_rng(seed), 32, objects) for seed in range(60)]
    assert all(mask.any() for mask in masks)
    assert len({mask.tobytes() for mask in masks}) > 40


def test_the_same_random_state_draws_the_same_mask() -> None:
    first, second = (draw_mask(np.random.default_rng(7), 64) for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("side", [8, 16])
def test_tiny_pictures_are_masked_too(side: int) -> None:
    for seed in range(60):
        mask = draw_mask(np.random.default_rng(seed), side)
        assert mask.any() and grow_region(mask, 8).any()


@pytest.mark.parametrize("seed", range(20))
def test_regions_grow_to_few_sizes_by_whole_tokens(seed: int) -> None:
    mask = draw_mask(np.random.default_rng(seed), 96)
    region = grow_region(mask, 8)
    before, after = masked_tokens(mask, 8), masked_tokens(region, 8)
    assert int(after.sum()) in {9, 18, 36, 54, 72, 108, 144}
    assert bool((after | ~before).all()) and bool((region | ~mask).all())
    # Tokens that held a masked pixel keep their other pixels, the added ones are masked whole.
    added = (after & ~before).numpy().repeat(8, axis=0).repeat(8, axis=1)
    assert np.array_equal(region, mask | added)
