"""Maps show what the blocks compute."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from diffcr.binding.attachment import attach
from diffcr.errors import DiffCRError
from diffcr.evaluation.router_maps import (
    RouterMaps,
    recording_routers,
    router_maps,
    scene_router_maps,
)
from diffcr.methods.diffcr.config import DiffCRConfig
from diffcr.scenes import ScenesDataset
from tests.hosts import denoise, inputs, scramble
from tests.pipelines import tiny_pixart_pipeline


def _attached() -> object:
    pipe = tiny_pixart_pipeline()
    scramble(attach(pipe, DiffCRConfig(timestep_regions=2)))
    return pipe


def test_maps_of_a_generation_have_a_shape_per_step_and_layer() -> None:
    pipe = _attached()
    maps = router_maps(pipe, "a red circle", steps=[0, 2], num_inference_steps=3)
    assert maps.scores.shape == maps.kept.shape == (2, 3, 4, 4)
    assert maps.timesteps[0] > maps.timesteps[1]
    assert maps.scores.dtype == np.float32 and np.isfinite(maps.scores).all()
    assert maps.image.size == (32, 32)
    wide = router_maps(pipe, "a red circle", [0], num_inference_steps=1, height=32, width=64)
    assert wide.kept.shape == (1, 3, 4, 8)


def test_a_block_changes_exactly_the_tokens_that_its_map_shows() -> None:
    transformer = _attached().transformer  # type: ignore[attr-defined]
    changed: list[torch.Tensor] = []

    def compare(block: object, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        changed.append((output != args[0]).any(-1)[-1])

    handles = [b.register_forward_hook(compare) for b in transformer.transformer_blocks]
    with recording_routers(transformer) as calls, torch.no_grad():
        denoise(transformer, inputs(batch=2).at(torch.tensor([100, 900])))
    for handle in handles:
        handle.remove()
    assert calls[0].timestep == 900
    assert all(0 < kept.sum() < 16 for kept in calls[0].kept)
    for kept, expected in zip(calls[0].kept, changed, strict=True):
        assert torch.equal(kept, expected)


def test_recording_leaves_nothing_behind() -> None:
    transformer = _attached().transformer  # type: ignore[attr-defined]
    with recording_routers(transformer) as calls:
        denoise(transformer, inputs())
    denoise(transformer, inputs())
    assert len(calls) == 1
    assert all(not block._forward_pre_hooks for block in transformer.transformer_blocks)


def test_maps_of_a_scene_come_with_its_mask() -> None:
    scene = ScenesDataset("test", resolution=32)[0]
    maps = scene_router_maps(_attached(), scene, timesteps=[900, 100])
    assert maps.timesteps == (900, 100)
    assert maps.mask is not None
    assert maps.mask.shape == (32, 32)
    values = maps.to_json_dict()
    assert np.asarray(values["scores"]).shape == (2, 3, 4, 4)
    share = maps.object_share()
    expected = (maps.kept.mean(1)[0] * share).sum() / share.sum()
    assert values["kept_on_objects"][0] == pytest.approx(expected)


def test_shares_on_objects_and_background() -> None:
    mask = np.zeros((4, 4), dtype=bool)
    mask[:2, :2] = True
    kept = np.zeros((1, 1, 2, 2), dtype=bool)
    kept[0, 0, 0, 0] = True
    image = Image.new("RGB", (4, 4))
    scores = np.zeros((1, 1, 2, 2), dtype=np.float32)
    values = RouterMaps("", (0.0,), scores, kept, image, mask).to_json_dict()
    assert values["kept_on_objects"] == [1.0]
    assert values["kept_on_background"] == [0.0]
    empty = RouterMaps("", (0.0,), scores, kept, image, np.zeros((4, 4), dtype=bool))
    assert empty.to_json_dict()["kept_on_objects"] == [None]


def test_bad_steps_and_bare_models_are_refused() -> None:
    with pytest.raises(DiffCRError, match="step 3"):
        router_maps(_attached(), "a red circle", steps=[3], num_inference_steps=3)
    with pytest.raises(DiffCRError, match="not attached"):
        router_maps(tiny_pixart_pipeline(), "a red circle", [0], num_inference_steps=1)
