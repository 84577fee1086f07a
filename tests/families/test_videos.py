"""What single families of videos need of the seam, beyond what all promise."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

import diffcr
from diffcr.errors import DiffCRError
from diffcr.hosts import family_of
from diffcr.hosts.grid import Grid
from tests.families import features
from tests.tiny_hosts import TINY_HOSTS, cosmos
from tests.tiny_hosts.host import Draws, Inputs, TinyHost, seeded


def with_inputs(name: str, add: Any) -> TinyHost:
    host = TINY_HOSTS[name]
    return replace(host, inputs=lambda batch, seed: {**host.inputs(batch, seed), **add(batch)})


def test_a_given_first_frame_is_always_computed() -> None:
    host = TINY_HOSTS["HunyuanVideoTransformer3DModel-token_replace"]
    transformer = host.make()
    grid = family_of(transformer).grid(transformer, host.inputs(2, 0))
    assert grid == Grid(4, 2, frames=2)
    assert host.tokens == grid.tokens + 4 * 2


def test_sound_follows_the_kept_tokens_under_a_mask_of_the_video() -> None:
    def mask(batch: int) -> Inputs:
        strengths = Draws(batch, 3).normal(24, 24).abs().clamp(max=1)
        return {"video_self_attention_mask": strengths}

    features.half_is_masked_attention(with_inputs("LTX2VideoTransformer3DModel", mask))


def test_frames_that_are_appended_are_on_no_grid() -> None:
    host = TINY_HOSTS["LTXVideoTransformer3DModel-per_token_timestep"]
    transformer, given = host.make(), host.inputs(1, 0)
    longer = {
        **given,
        "hidden_states": torch.cat([given["hidden_states"], given["hidden_states"][:, :8]], 1),
        "timestep": torch.cat([given["timestep"], torch.zeros(1, 8)], 1),
        "video_coords": torch.rand(1, 3, 32),
    }
    grid = family_of(transformer).grid
    assert grid(transformer, given) == Grid(4, 2, frames=3)
    assert grid(transformer, longer) == Grid(0, 0, beside=32)
    compressor = diffcr.attach(transformer)
    compressor.set_compression_ratios(0.5)
    (output,) = features.forward(transformer, longer)
    assert output.shape[1] == 32 and output.isfinite().all()
    diffcr.detach(transformer)
    diffcr.attach(transformer, diffcr.ToMeConfig(0.5, placement="block"))
    with pytest.raises(DiffCRError, match="does not say where its tokens lie"):
        transformer(**longer)


def test_cosmos_1_is_told_log_sigma_and_the_others_the_noise_level() -> None:
    scales = {}
    for variant in ("", "-cosmos2", "-per_frame_timestep"):
        transformer = TINY_HOSTS[f"CosmosTransformer3DModel{variant}"].make()
        scales[variant] = family_of(transformer).noise_scale(transformer.config)
    sigma = 3.0
    assert scales[""].levels(0.25 * torch.tensor([sigma]).log()) == pytest.approx([0.75])
    for level in (0.01, 0.3, 0.75, 0.98):
        assert scales[""].levels(scales[""].value(level)) == pytest.approx([level])
    assert scales[""].value(0) == pytest.approx(0.25 * torch.tensor(0.002).log().item())
    assert scales[""].value(1) == pytest.approx(0.25 * torch.tensor(80.0).log().item())
    for variant in ("-cosmos2", "-per_frame_timestep"):
        assert scales[variant].levels(torch.tensor([0.75])) == [0.75]


def test_control_of_cosmos_goes_with_the_tokens() -> None:
    host = with_inputs(
        "CosmosTransformer3DModel-cosmos2",
        lambda batch: {"block_controlnet_hidden_states": [Draws(batch, 5).normal(24, 48)] * 3},
    )
    build = partial(cosmos.build, extra_pos_embed_type=None, controlnet_block_every_n=1)
    features.half_is_masked_attention(replace(host, make=seeded(build)))


def test_a_mask_of_the_video_goes_with_the_tokens_of_allegro() -> None:
    def mask(batch: int) -> Inputs:
        seen = torch.ones(batch, 3, 8, 4)
        seen[:, :, :, 2:] = 0
        return {"attention_mask": seen}

    features.half_is_masked_attention(with_inputs("AllegroTransformer3DModel", mask))


def test_sparse_attention_of_kandinsky_is_refused() -> None:
    host = TINY_HOSTS["Kandinsky5Transformer3DModel"]
    given = {**host.inputs(1, 0), "sparse_params": {"to_fractal": False}}
    with pytest.raises(DiffCRError, match="sparse attention over squares of tokens"):
        features.routed(host)(**given)


@pytest.mark.parametrize("name", ["CogVideoXTransformer3DModel", "HeliosTransformer3DModel"])
def test_a_feed_forward_that_takes_other_rows_merges_no_tokens(name: str) -> None:
    with pytest.raises(DiffCRError, match="no part 'mlp' that takes the routed tokens alone"):
        diffcr.attach(TINY_HOSTS[name].make(), diffcr.ToMeConfig(0.5, placement="mlp"))
