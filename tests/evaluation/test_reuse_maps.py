"""Maps of reuse show which tokens were computed, and how old the others are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffcr.binding.attachment import attach
from diffcr.errors import DiffCRError
from diffcr.evaluation.generate import generate_images
from diffcr.evaluation.reuse_maps import recording_reuse, reuse_maps
from diffcr.methods.diffcr.config import DiffCRConfig
from diffcr.methods.reuse.config import ReuseConfig
from tests.pipelines import tiny_pixart_pipeline


def test_ages_of_tokens() -> None:
    pipe = tiny_pixart_pipeline()
    attach(pipe, ReuseConfig(0.5, granularity="tokens"))
    maps = reuse_maps(pipe, "a red circle", num_inference_steps=8)
    assert maps.ages.shape == (8, 4, 4) and maps.ages.dtype == np.int64
    dense = [level > 0.85 or step == 0 for step, level in enumerate(maps.noise_levels)]
    assert 0 < sum(dense) < 8
    for step, ages in enumerate(maps.ages):
        assert (ages == 0).mean() == (1.0 if dense[step] else 0.5)
        if step:
            grown = ages > 0
            assert (ages[grown] == maps.ages[step - 1][grown] + 1).all()
    same = generate_images(pipe, ["a red circle"], num_inference_steps=8)[0]
    assert maps.image.tobytes() == same.tobytes()


def test_skipped_steps_compute_nothing() -> None:
    pipe = tiny_pixart_pipeline()
    reuser = attach(pipe, ReuseConfig(0.5, granularity="steps"))
    maps = reuse_maps(pipe, "a red circle", num_inference_steps=8)
    expected = reuser.visited_regions(maps.noise_levels)
    assert maps.computed_shares() == [float(region) for region in expected]
    assert 0.0 in maps.computed_shares()


def test_recording_leaves_nothing_behind() -> None:
    pipe = tiny_pixart_pipeline()
    attach(pipe, ReuseConfig(0.5))
    with recording_reuse(pipe) as calls:
        pass
    generate_images(pipe, ["a red circle"], num_inference_steps=2)
    assert calls == []
    last = pipe.transformer.transformer_blocks[-1]
    assert isinstance(last, torch.nn.Module) and not last._forward_hooks


def test_a_method_that_keeps_nothing_has_no_ages() -> None:
    pipe = tiny_pixart_pipeline()
    attach(pipe, DiffCRConfig())
    with pytest.raises(DiffCRError, match="keeps nothing from step to step"):
        reuse_maps(pipe, "a red circle")
