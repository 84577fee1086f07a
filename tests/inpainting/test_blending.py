"""What is outside of the region stays; what is inside meets it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from diffcr.errors import DiffCRError
from diffcr.inpainting.images.blending import (
    blend,
    check_blending,
    feather_weights,
    match_boundary,
    solve_membrane,
)
from diffcr.inpainting.images.edits import Edit, WorkingSize, prepare_edits
from diffcr.inpainting.images.masks import dilate
from tests.inpainting.hosts import box_mask, photograph

_SIZE = WorkingSize(working_side=32, pixels_per_token=8)


def _edit(image: Any, mask: Any, dilation: int | None = None) -> Edit:
    (edit,) = prepare_edits(image, mask, _SIZE, dilation)
    return edit


def _direct_solution(values: NDArray[Any], inside: NDArray[np.bool_]) -> NDArray[Any]:
    height, width = inside.shape
    matrix, right = np.zeros((height * width,) * 2), np.zeros((height * width, values.shape[2]))
    for row in range(height):
        for column in range(width):
            place = row * width + column
            if not inside[row, column]:
                matrix[place, place], right[place] = 1, values[row, column]
                continue
            for down, across in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                other = (row + down, column + across)
                if 0 <= other[0] < height and 0 <= other[1] < width:
                    matrix[place, place] += 1
                    matrix[place, other[0] * width + other[1]] -= 1
    return np.linalg.solve(matrix, right).reshape(values.shape)


@pytest.mark.parametrize("shape", [(20, 20), (17, 23), (1, 9), (30, 6)])
def test_the_membrane_is_that_of_a_direct_solver(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    values = random.normal(0, 40, (*shape, 3)).astype(np.float32)
    inside = np.zeros(shape, bool)
    inside[shape[0] // 4 :, shape[1] // 5 : -shape[1] // 5] = True
    inside[shape[0] // 2, shape[1] // 2] = False
    found = solve_membrane(values, inside)
    assert np.abs(found - _direct_solution(values, inside)).max() < 0.5


def test_a_shift_of_colour_vanishes() -> None:
    rows, columns = np.mgrid[:64, :64]
    original = np.stack([rows * 2, columns * 2, rows + columns], -1).astype(np.uint8)
    painted = (original + np.array([60, 20, 40])).astype(np.uint8)
    region = np.zeros((64, 64), bool)
    region[10:40, 20:64] = True
    found = match_boundary(painted, original, region).astype(int)
    assert np.abs(found - original)[region].max() <= 1
    assert np.array_equal(found[~region], painted[~region])


def test_a_region_without_boundary_or_without_pixels_changes_nothing() -> None:
    painted, original = photograph(), photograph(seed=1)
    for region in (np.ones((32, 32), bool), np.zeros((32, 32), bool)):
        assert np.array_equal(match_boundary(painted, original, region), painted)


@pytest.mark.parametrize("dilation", [0, 1, 2, 5, 16, 40])
def test_weights_are_one_on_the_mask_and_zero_beyond_the_ring(dilation: int) -> None:
    mask = box_mask(40, 50) > 0
    weights = feather_weights(mask, dilation)
    assert (weights[mask] == 1).all()
    assert (weights[~dilate(mask, dilation)] == 0).all()
    assert weights.min() >= 0 and weights.max() == 1


@pytest.mark.parametrize("blending", ["poisson", "feather"])
@pytest.mark.parametrize("dilation", [None, 0, 3])
@pytest.mark.parametrize("shape", [(32, 32), (64, 48), (5, 3), (200, 300), (1, 1)])
def test_outside_of_the_region_every_pixel_is_equal(
    blending: Any, dilation: int | None, shape: tuple[int, int]
) -> None:
    original = photograph(*shape)
    edit = _edit(original, box_mask(*shape), dilation)
    generated = photograph(*edit.working_region.shape, seed=3)
    result = blend(edit, generated, blending).pixels
    assert result.shape == original.shape
    assert np.array_equal(result[~edit.region], original[~edit.region])
    assert not np.array_equal(result, original)


def test_under_the_mask_a_feathered_paste_is_what_was_generated() -> None:
    edit = _edit(photograph(), box_mask(), dilation=4)
    generated = photograph(seed=3)
    result = blend(edit, generated, "feather").pixels
    assert np.array_equal(result[edit.mask], generated[edit.mask])
    weights = feather_weights(edit.mask, 4)[..., None]
    before = photograph().astype(np.float32)
    assert np.array_equal(result, np.rint(before + weights * (generated - before)))


@pytest.mark.parametrize("blending", ["poisson", "feather"])
@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "LA", "1"])
def test_outside_is_equal_in_every_mode(blending: Any, mode: str) -> None:
    rgba = np.dstack([photograph(), photograph(seed=2)[..., :1]])
    image = Image.fromarray(rgba).convert("RGB" if mode in ("P", "CMYK", "1") else "RGBA")
    image = image.convert(mode)
    edit = _edit(image, box_mask())
    result = np.asarray(blend(edit, photograph(seed=3), blending).to_pil())
    before = np.asarray(image.convert("RGBA" if mode in ("RGBA", "LA") else "RGB"))
    assert np.array_equal(result[~edit.region], before[~edit.region])
    if mode in ("RGBA", "LA"):
        assert (result[edit.mask][:, 3] == 255).all()


def test_an_empty_mask_gives_the_picture_back() -> None:
    edit = _edit(photograph(), np.zeros((32, 32), bool))
    assert edit.is_empty and blend(edit, photograph(seed=1)) is edit.picture


def test_the_working_size_keeps_proportions_in_whole_tokens() -> None:
    for shape, expected in (
        ((32, 32), (32, 32)),
        ((100, 50), (32, 16)),
        ((8000, 10), (32, 8)),
        ((3, 4), (24, 32)),
    ):
        edit = _edit(np.zeros((*shape, 3), np.uint8), np.ones(shape, bool))
        assert edit.working_region.shape == expected
    picture = _edit(np.zeros((100, 50, 3), np.uint8), np.ones((100, 50), bool)).picture
    assert WorkingSize(32, 8, height=64).of(picture) == (64, 32)
    assert WorkingSize(32, 8, width=64).of(picture) == (128, 64)
    assert WorkingSize(32, 8, height=8, width=64).of(picture) == (8, 64)


def test_mistakes_are_named() -> None:
    image, mask = photograph(), box_mask()
    with pytest.raises(DiffCRError, match="the mask is 31 x 32 pixels, the image 32 x 32"):
        prepare_edits(image, mask[:, 1:], _SIZE)
    with pytest.raises(DiffCRError, match="2 of image, 3 of mask_image"):
        prepare_edits([image] * 2, [mask] * 3, _SIZE)
    with pytest.raises(DiffCRError, match="height is 12: give a multiple of 8"):
        prepare_edits(image, mask, WorkingSize(32, 8, height=12))
    with pytest.raises(DiffCRError, match="dilation is -1"):
        prepare_edits(image, mask, _SIZE, dilation=-1)
    wide = photograph(16, 32)
    with pytest.raises(DiffCRError, match="give height and width"):
        prepare_edits([image, wide], [mask, box_mask(16, 32)], _SIZE)
    with pytest.raises(DiffCRError, match="blending is 'alpha': choose from poisson, feather"):
        check_blending("alpha")
