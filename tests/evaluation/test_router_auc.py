"""One number per layer and region says whether routers look at objects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from diffcr.binding.attachment import attach
from diffcr.errors import DiffCRError
from diffcr.evaluation.router_auc import RouterAUC, area_under_curve, router_auc
from diffcr.evaluation.router_maps import scene_router_maps
from diffcr.methods.diffcr.config import DiffCRConfig, MoDConfig
from diffcr.scenes import Scene, ScenesDataset
from tests.hosts import scramble, scramble_routers
from tests.pipelines import tiny_pixart_pipeline


def _scenes(count: int) -> list[Scene]:
    dataset = ScenesDataset("test", size=count, resolution=32)
    return [dataset[i] for i in range(count)]


def _attached() -> object:
    pipe = tiny_pixart_pipeline()
    scramble(attach(pipe, DiffCRConfig(timestep_regions=2)))
    return pipe


@pytest.mark.parametrize("values", [2, 5, 10_000])
def test_the_area_is_scikit_learns_with_ties_too(values: int) -> None:
    random = np.random.default_rng(values)
    for _ in range(20):
        scores = random.integers(values, size=60).astype(np.float32)
        labels = np.append(random.random(58) < 0.3, [True, False])
        expected = roc_auc_score(labels, scores)
        assert area_under_curve(scores, labels) == pytest.approx(expected, abs=1e-12)
        assert area_under_curve(-scores, labels) == pytest.approx(1 - expected, abs=1e-12)


def test_covered_shares_give_the_area_over_pixels() -> None:
    random = np.random.default_rng(0)
    mask = ScenesDataset("test")[0].mask
    shares = mask.reshape(12, 8, 12, 8).mean(axis=(1, 3))
    scores = random.normal(size=(12, 12)) + shares
    pixels = np.kron(scores, np.ones((8, 8)))
    expected = roc_auc_score(mask.flatten(), pixels.flatten())
    assert area_under_curve(scores.flatten(), shares.flatten()) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("scores", "shares", "message"),
    [
        (np.zeros(3), np.zeros(2), "do not fit"),
        (np.zeros((2, 2)), np.zeros((2, 2)), "do not fit"),
        (np.array([np.nan, 0]), np.array([0, 1]), "not a number"),
        (np.zeros(2), np.array([0, 1.1]), "outside"),
        (np.zeros(2), np.array([0, np.nan]), "outside"),
        (np.zeros(2), np.ones(2), "show the same"),
        (np.zeros(0), np.zeros(0), "show the same"),
    ],
)
def test_bad_values_are_refused(
    scores: NDArray[np.float64], shares: NDArray[np.float64], message: str
) -> None:
    with pytest.raises(DiffCRError, match=message) as refused:
        area_under_curve(scores, shares)
    assert "\n" not in str(refused.value)


def test_untrained_routers_are_at_chance_exactly() -> None:
    pipe = tiny_pixart_pipeline()
    attach(pipe)
    result = router_auc(pipe, _scenes(2), timesteps_per_region=1)
    assert (result.per_scene == 0.5).all()
    assert (result.mean == 0.5).all()


def test_a_region_is_the_mean_over_its_own_timesteps() -> None:
    pipe, scenes = _attached(), _scenes(1)
    result = router_auc(pipe, scenes, timesteps_per_region=2, seed=3)
    assert result.timesteps == ((125, 375), (625, 875))
    for region, timesteps in enumerate(result.timesteps):
        maps = scene_router_maps(pipe, scenes[0], timesteps, seed=3)
        shares = maps.object_share().flatten()
        for layer in range(3):
            areas = [area_under_curve(maps.scores[i, layer].flatten(), shares) for i in (0, 1)]
            assert result.mean[layer, region] == pytest.approx(np.mean(areas))
    assert len(np.unique(result.mean)) > 1


def test_a_scene_counts_the_same_whatever_the_others() -> None:
    pipe, scenes = _attached(), _scenes(3)
    together = router_auc(pipe, scenes, timesteps_per_region=1)
    assert np.array_equal(together.per_scene[:1], router_auc(pipe, scenes[:1], 1).per_scene)
    blank = replace(scenes[1], mask=np.zeros_like(scenes[1].mask))
    without = router_auc(pipe, [scenes[0], blank, scenes[2]], timesteps_per_region=1)
    assert without.left_out == 1
    assert np.array_equal(without.per_scene, together.per_scene[[0, 2]])


def test_what_places_alone_tell_comes_from_the_other_scenes() -> None:
    pipe, scenes = _attached(), _scenes(3)
    same = [replace(scene, mask=scenes[0].mask) for scene in scenes]
    alike = router_auc(pipe, same, timesteps_per_region=1)
    assert alike.from_place == pytest.approx(alike.attainable)
    assert router_auc(pipe, scenes, timesteps_per_region=1).from_place < alike.from_place
    assert router_auc(pipe, scenes[:1], timesteps_per_region=1).from_place == 0.5


def test_a_model_with_one_region_is_reported_in_quarters() -> None:
    pipe = tiny_pixart_pipeline()
    scramble_routers(attach(pipe, MoDConfig(0.3)))
    values = router_auc(pipe, _scenes(1), timesteps_per_region=1).to_json_dict()
    assert np.asarray(values["mean"]).shape == (3, 4)
    assert values["regions"] == [[0, 249], [250, 499], [500, 749], [750, 999]]
    assert values["timesteps"] == [[125], [375], [625], [875]]
    assert 0.5 < values["attainable"] < 1


def test_the_error_is_that_of_a_mean_over_scenes() -> None:
    per_scene = np.array([0.2, 0.4, 0.9]).reshape(3, 1, 1)
    values = RouterAUC(per_scene, ((500,),), 0.9, 0.8, 1).to_json_dict()
    assert values["mean"] == [[0.5]]
    assert values["standard_error"] == [[pytest.approx(0.2082, abs=1e-4)]]
    assert (values["scenes"], values["left_out"]) == (3, 1)
    assert RouterAUC(per_scene[:1], ((500,),), 0.9, 0.5, 0).to_json_dict()["standard_error"] is None


def test_what_cannot_be_measured_is_refused() -> None:
    scene = _scenes(1)[0]
    with pytest.raises(DiffCRError, match="timesteps_per_region is 0"):
        router_auc(_attached(), [scene], timesteps_per_region=0)
    full = replace(scene, mask=np.ones_like(scene.mask))
    for scenes in ([], [full]):
        with pytest.raises(DiffCRError, match=f"none of {len(scenes)} scenes"):
            router_auc(_attached(), scenes)
    with pytest.raises(DiffCRError, match="not attached"):
        router_auc(tiny_pixart_pipeline(), [scene])
