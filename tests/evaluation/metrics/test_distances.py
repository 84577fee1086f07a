"""The numbers on given features, against other people's implementations and direct sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.evaluation.metrics.distances import clip_mmd, frechet_distance, kernel_distance

DISTANCES = (frechet_distance, lambda a, b: kernel_distance(a, b, 2, 5), clip_mmd)


def _features(count: int, width: int = 6, seed: int = 0, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator)
    return torch.randn(count, width, generator=generator) @ mixing + shift


def _unit(features: Tensor) -> Tensor:
    return torch.nn.functional.normalize(features)


def test_frechet_distance_of_known_gaussians() -> None:
    torch.manual_seed(0)
    first = torch.randn(200_000, 2)
    second = torch.randn(200_000, 2) * torch.tensor([2.0, 1.0]) + torch.tensor([3.0, 0.0])
    assert frechet_distance(first, second) == pytest.approx(9 + 1, rel=0.02)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("counts", "width"), [((50, 60), 6), ((7, 9), 20), ((40, 5), 1)])
def test_frechet_distance_is_that_of_the_matrix_root(counts: tuple[int, int], width: int) -> None:
    """With fewer rows than columns too, where the covariances are singular."""
    linalg = pytest.importorskip("scipy.linalg")
    a = _features(counts[0], width, 1).double().numpy()
    b = _features(counts[1], width, 2, shift=0.5).double().numpy()
    first, second = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    gap = np.square(a.mean(0) - b.mean(0)).sum()
    root = np.trace(np.real(linalg.sqrtm(first @ second)))
    expected = gap + np.trace(first) + np.trace(second) - 2 * root
    measured = frechet_distance(torch.from_numpy(a), torch.from_numpy(b))
    # scipy's root of a singular matrix is exact to about the root of the rounding error.
    assert measured == pytest.approx(expected, rel=1e-5)


def test_kid_is_the_double_sum_over_each_subset() -> None:
    pairwise = pytest.importorskip("sklearn.metrics.pairwise")
    a, b = _features(30, seed=1), _features(25, seed=2, shift=0.2)
    distance = kernel_distance(a, b, subsets=4, subset_size=10, seed=3)
    generator = torch.Generator().manual_seed(3)
    expected = []
    for _ in range(4):
        x = a[torch.randperm(30, generator=generator)[:10]].double().numpy()
        y = b[torch.randperm(25, generator=generator)[:10]].double().numpy()
        kernels = [
            pairwise.polynomial_kernel(p, q, degree=3, gamma=1 / 6, coef0=1)
            for p, q in ((x, x), (y, y), (x, y))
        ]
        pairs = [(i, j) for i in range(10) for j in range(10) if i != j]
        within = sum(k[i, j] for k in kernels[:2] for i, j in pairs) / 90
        expected.append(within - 2 * kernels[2].sum() / 100)
    assert distance.values == pytest.approx(expected, rel=1e-9)
    assert distance.mean == pytest.approx(np.mean(expected), rel=1e-9)
    assert distance.std == pytest.approx(np.std(expected), rel=1e-9)


def test_kid_is_unbiased_and_reproducible() -> None:
    same = _features(400, seed=1)
    distance = kernel_distance(same[:200], same[200:], subsets=20, subset_size=50)
    spread = distance.std / np.sqrt(20)
    assert abs(distance.mean) < 5 * spread
    assert min(distance.values) < 0 < max(distance.values)
    assert kernel_distance(same[:200], same[200:], 20, 50) == distance
    assert kernel_distance(same[:200], same[200:], 20, 50, seed=1) != distance
    assert kernel_distance(same[:200], same[200:] + 1, 20, 50).mean > 3 * distance.std


def test_cmmd_is_the_mean_over_all_pairs() -> None:
    pairwise = pytest.importorskip("sklearn.metrics.pairwise")
    a, b = _unit(_features(30, seed=1)), _unit(_features(25, seed=2))
    x, y = a.double().numpy(), b.double().numpy()
    means = [
        pairwise.rbf_kernel(p, q, gamma=1 / (2 * 10**2)).mean() for p, q in ((x, x), (y, y), (x, y))
    ]
    expected = 1000 * (means[0] + means[1] - 2 * means[2])
    assert clip_mmd(a, b) == pytest.approx(expected, rel=1e-8)
    assert clip_mmd(a, a) == pytest.approx(0, abs=1e-9)


def test_cmmd_does_not_depend_on_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = _unit(_features(30, seed=1)), _unit(_features(25, seed=2))
    whole = clip_mmd(a, b)
    monkeypatch.setattr("diffcr.evaluation.metrics.distances._CMMD_ROWS", 7)
    assert clip_mmd(a, b) == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("distance", DISTANCES)
def test_what_cannot_be_compared_is_one_clear_line(distance: object) -> None:
    assert callable(distance)
    for first, second, message in (
        (_features(1), _features(9), "1 images are too few"),
        (_features(9), _features(9, width=5), "cannot be compared"),
        (_features(9), _features(9) / 0, "not finite"),
    ):
        with pytest.raises(DiffCRError, match=message) as error:
            distance(first, second)
        assert "\n" not in str(error.value)


def test_kid_needs_as_many_images_as_a_subset_has() -> None:
    with pytest.raises(DiffCRError, match="there are 9: give more images, or .* at most 9"):
        kernel_distance(_features(9), _features(20), subset_size=10)
    with pytest.raises(DiffCRError, match="0 subsets"):
        kernel_distance(_features(9), _features(20), subsets=0)
