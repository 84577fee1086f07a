"""The models behind the page, without a browser."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Lock
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import diffcr
from diffcr.binding.model import get_reuser, is_attached
from diffcr.errors import DiffCRError
from diffcr.methods.diffcr.config import DiffCRConfig
from diffcr.methods.reuse.config import ReuseConfig
from diffcr.studio.generate_tab import GenerateTab
from diffcr.studio.inpaint_tab import PAINTED, read_mask
from diffcr.studio.inpainting import InpaintingModel
from diffcr.studio.inside_tab import InsideTab
from diffcr.studio.models import StudioModel
from diffcr.studio.requests import PictureRequest
from diffcr.studio.views import ReusedView, RoutedView
from tests.hosts import scramble
from tests.inpainting.hosts import photograph, tiny_lazy_pipeline
from tests.pipelines import tiny_pixart_pipeline

_REQUEST = PictureRequest("a red circle", seed=3, steps=4)


def _model(pipe: Any, dense: Any = None) -> StudioModel:
    return StudioModel.of(pipe, dense, guidance_scale=4.5, lock=Lock())


def test_a_bare_pipeline_is_shown_with_reuse_and_stays_bare() -> None:
    pipe = tiny_pixart_pipeline()
    model = _model(pipe)
    assert [*model.methods] == ["Reuse of whole steps", "Reuse of tokens"]
    dense = model.paint(_REQUEST)
    for title in model.methods:
        cheap = model.paint(_REQUEST, title, budget=0.3)
        assert cheap.image.tobytes() != dense.image.tobytes()
        whole = model.paint(_REQUEST, title, budget=1.0)
        assert whole.image.tobytes() == dense.image.tobytes()
        assert not is_attached(pipe.transformer)


def test_an_attached_pipeline_is_dense_and_compressed() -> None:
    pipe = tiny_pixart_pipeline()
    bare = _model(pipe).paint(_REQUEST)
    scramble(diffcr.attach(pipe, DiffCRConfig(timestep_regions=2)))
    model = _model(pipe)
    (title,) = model.methods
    assert title.startswith("DiffCR ") and model.methods[title].least_budget is None
    assert model.paint(_REQUEST).image.tobytes() == bare.image.tobytes()
    assert model.paint(_REQUEST, title).image.tobytes() != bare.image.tobytes()


def test_the_dial_leaves_the_owners_ratio_as_it_was() -> None:
    pipe = tiny_pixart_pipeline()
    diffcr.attach(pipe, ReuseConfig(0.4))
    model = _model(pipe)
    model.paint(_REQUEST, "Reuse of steps", budget=0.3)
    assert get_reuser(pipe).config.compression_ratio == 0.4
    with pytest.raises(DiffCRError, match="budget is 0.01"):
        model.paint(_REQUEST, "Reuse of steps", budget=0.01)


def test_trained_weights_need_the_bare_pipeline_beside_them() -> None:
    pipe = tiny_pixart_pipeline()
    diffcr.attach(pipe, DiffCRConfig())
    with torch.no_grad():
        for parameter in pipe.transformer.transformer_blocks.parameters():
            parameter.add_(0.1)
    with pytest.raises(DiffCRError, match="give the bare pipeline as dense"):
        _model(pipe)
    assert len(_model(pipe, tiny_pixart_pipeline()).methods) == 3


def test_visitors_at_once_get_what_one_gets_alone() -> None:
    model = _model(tiny_pixart_pipeline())
    jobs = [
        (replace(_REQUEST, prompt=prompt), title, budget)
        for prompt in ("a red circle", "a blue star")
        for title, budget in ((None, None), *((title, 0.4) for title in model.methods))
    ]
    alone = [model.paint(*job).image.tobytes() for job in jobs]
    with ThreadPoolExecutor(len(jobs)) as visitors:
        together = list(visitors.map(lambda job: model.paint(*job).image.tobytes(), jobs))
    assert together == alone


def test_views_show_what_is_computed() -> None:
    pipe = tiny_pixart_pipeline()
    scramble(diffcr.attach(pipe, DiffCRConfig(timestep_regions=2)))
    model = _model(pipe, tiny_pixart_pipeline())
    (*_, routed) = model.methods
    inside = model.look_inside(_REQUEST, routed)
    assert isinstance(inside, RoutedView)
    assert (inside.steps, inside.layers) == (4, 3)
    assert inside.regions == tuple(int(t >= 500) for t in inside.maps.timesteps)
    assert {*inside.regions} == {0, 1}
    assert inside.draw(0, None).size[0] >= 480
    assert inside.table(0, 1).count('class="current"') == 1
    ages = model.look_inside(_REQUEST, "Reuse of whole steps", budget=0.3)
    assert isinstance(ages, ReusedView)
    assert ages.maps.computed_shares()[0] == 1.0
    assert 0.0 in ages.maps.computed_shares()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prompt": "  "}, "the prompt is empty"),
        ({"prompt": "a" * 1001}, "the prompt has 1001 characters"),
        ({"steps": 101}, "the number of steps is 101: give 1 to 100"),
        ({"seed": -1}, "the seed is -1"),
        ({"guidance_scale": float("nan")}, "the guidance scale is nan"),
    ],
)
def test_what_is_outside_its_range_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(DiffCRError, match=message):
        replace(_REQUEST, **wrong)


def test_what_is_no_longer_kept_is_said() -> None:
    model = _model(tiny_pixart_pipeline())
    with pytest.raises(DiffCRError, match="this picture is no longer kept"):
        GenerateTab(model).show((), 1)
    with pytest.raises(DiffCRError, match="these maps are no longer kept"):
        InsideTab(model).scrub(None, 3, "all layers")


def test_a_mask_is_what_is_painted_or_a_part_by_name() -> None:
    layer = Image.new("RGBA", (6, 4))
    layer.putpixel((5, 0), (213, 94, 0, 120))
    painted = read_mask([layer], PAINTED, (6, 4))
    assert painted.sum() == 1 and painted[0, 5]
    assert read_mask([], "Left half", (6, 4))[:, :3].all()
    assert read_mask([], "Left half", (6, 4)).mean() == 0.5
    assert read_mask([], "Lower half", (5, 3))[2].all()
    assert read_mask([], "Everything", (6, 4)).all()
    with pytest.raises(DiffCRError, match="no part is called 'Middle'"):
        read_mask([], "Middle", (6, 4))


def test_repainting_refuses_what_it_cannot_do() -> None:
    model = InpaintingModel(tiny_lazy_pipeline(), 4.5, Lock())
    image = Image.fromarray(photograph(seed=0))
    nothing = np.zeros((image.height, image.width), dtype=bool)
    with pytest.raises(DiffCRError, match="nothing is masked"):
        model.repaint(image, nothing, _REQUEST)
    large = Image.new("L", (4097, 4096))
    with pytest.raises(DiffCRError, match="4097 x 4096 pixels"):
        model.repaint(large, np.ones((4096, 4097), dtype=bool), _REQUEST)
    painted = model.repaint(image, ~nothing, _REQUEST)
    assert painted.image.size == image.size and painted.area == 1.0
