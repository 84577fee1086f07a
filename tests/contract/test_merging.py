"""Token merging: what depends on the grid, and what on draws."""

from __future__ import annotations

from dataclasses import replace

import torch

from diffcr.binding.attachment import attach
from diffcr.methods.tome.config import ToMeConfig
from tests.contract.test_training_free import attached_host
from tests.hosts import denoise, inputs, pixart


def test_merging_depends_on_the_grid_of_the_call_alone() -> None:
    given = {size: inputs(size=size) for size in (8, 12)}
    fresh = {size: denoise(attached_host(ToMeConfig(0.4)), call) for size, call in given.items()}
    transformer = attached_host(ToMeConfig(0.4))
    with torch.inference_mode():
        denoise(transformer, given[8])
    for size in (8, 12, 8):
        output = denoise(transformer, given[size])
        assert torch.equal(output, fresh[size])
    output.square().mean().backward()


def test_layers_and_seeds_share_no_draw_of_destinations() -> None:
    drawn = [attach(pixart(), ToMeConfig(0.5, seed=seed))._seeds() for seed in range(4)]
    assert len({seed for seeds in drawn for seed in seeds}) == 4 * 3


def test_a_grid_of_one_row_is_merged() -> None:
    transformer, given = pixart(), inputs()
    given = replace(given, latents=given.latents[:, :, :2])
    bare = denoise(transformer, given)
    attach(transformer, ToMeConfig(0.5, "block"))
    assert bare.shape[2] == 2 and not torch.equal(denoise(transformer, given), bare)
