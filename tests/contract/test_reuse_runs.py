"""Token reuse: what is kept belongs to one sampling run, and no call sees another's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import diffcr
from diffcr.binding.attachment import attach
from diffcr.binding.model import disabled
from diffcr.errors import DiffCRError
from diffcr.methods.reuse.config import ReuseConfig
from diffcr.methods.reuse.reuser import TokenReuser
from tests.hosts import denoise, inputs, pixart
from tests.pipelines import final_latents, tiny_pixart_pipeline
from tests.reuse import LEVELS, TOKENS, both_forms, moved, reusing, sample


@both_forms
def test_another_prompt_a_rising_level_and_another_size_begin_anew(config: ReuseConfig) -> None:
    transformer, given = reusing(config), inputs()
    expected = sample(transformer, given)
    other = replace(inputs(seed=7), prompt_embeds=torch.randn(2, 5, 32))
    for levels in (LEVELS, LEVELS[:2], (600,)):
        sample(transformer, other, levels)
        assert torch.equal(sample(transformer, given), expected)
    # The same embeddings, aborted half way, then from the noise again.
    sample(transformer, given, LEVELS[:3])
    assert torch.equal(sample(transformer, given), expected)
    larger = replace(inputs(size=16), prompt_embeds=given.prompt_embeds)
    sample(transformer, larger)
    assert torch.equal(sample(transformer, given), expected)


@both_forms
def test_image_to_image_of_another_prompt_begins_dense_lower(
    config: ReuseConfig,
) -> None:
    transformer, given = reusing(config), inputs()
    bare = pixart()
    sample(transformer, inputs(seed=8))
    start = sample(transformer, given, (400, 200))
    assert torch.equal(start[0], sample(bare, given, (400, 200))[0])


@both_forms
def test_what_is_left_begins_anew(config: ReuseConfig) -> None:
    transformer, given = reusing(config), inputs()
    bare = sample(pixart(), given, (500,))
    for leave in ("ratio 0", "disabled", "written"):
        sample(transformer, given, (990, 800))
        if leave == "ratio 0":
            transformer.diffcr.set_compression_ratio(0.0)
            sample(transformer, given, (700,))
            transformer.diffcr.set_compression_ratio(config.compression_ratio)
        elif leave == "disabled":
            with disabled(transformer):
                sample(transformer, given, (700,))
        else:
            given.prompt_embeds.mul_(1)
        assert torch.equal(sample(transformer, given, (500,)), bare), leave


@both_forms
def test_an_error_within_a_call_spoils_no_later_trajectory(config: ReuseConfig) -> None:
    transformer, given = reusing(config), inputs()
    expected = sample(transformer, given)
    broken = transformer.transformer_blocks[1].ff.register_forward_pre_hook(_fail)
    with pytest.raises(RuntimeError, match="broken"):
        sample(transformer, given)
    broken.remove()
    assert torch.equal(sample(transformer, given), expected)


def test_a_call_of_another_size_that_fails_leaves_nothing() -> None:
    transformer, given = reusing(), inputs()
    larger = replace(inputs(size=16), prompt_embeds=given.prompt_embeds)
    bare = sample(pixart(), given, (500,))
    sample(transformer, given, (990,))
    broken = transformer.transformer_blocks[1].ff.register_forward_pre_hook(_fail)
    with pytest.raises(RuntimeError, match="broken"):
        sample(transformer, larger, (700,))
    broken.remove()
    assert torch.equal(sample(transformer, given, (500,)), bare)


def _fail(module: nn.Module, args: object) -> None:
    raise RuntimeError("broken")


@both_forms
def test_the_halves_of_guidance_in_one_call_or_in_two(config: ReuseConfig) -> None:
    transformer, given = reusing(config), inputs()
    halves = [given.only(slice(0, 1)), given.only(slice(1, 2))]
    halves = [replace(h, latents=given.latents[:1]) for h in halves]
    doubled = replace(given, latents=given.latents[:1].repeat(2, 1, 1, 1))
    together = sample(transformer, doubled)
    outputs: list[list[Tensor]] = [[], []]
    with torch.no_grad():
        for step, level in enumerate(LEVELS):
            for half, found in zip(halves, outputs, strict=True):
                found.append(denoise(transformer, moved(half.at(torch.tensor([level])), step)))
    apart = torch.stack([torch.cat(pair) for pair in zip(*outputs, strict=True)])
    torch.testing.assert_close(apart, together, atol=1e-5, rtol=0)


@both_forms
def test_neighbours_never_change_a_result(config: ReuseConfig) -> None:
    transformer, given = reusing(config), inputs(batch=3)
    together = sample(transformer, given)
    # The change of the latents is the same for all samples of a batch.
    other = replace(given, latents=given.latents.clone(), prompt_embeds=given.prompt_embeds.clone())
    other.latents[1:] += 1
    other.prompt_embeds[1:] += 1
    assert torch.equal(sample(transformer, other)[:, 0], together[:, 0])


@both_forms
def test_a_batch_of_mixed_levels_and_training_compute_everything(config: ReuseConfig) -> None:
    transformer, given = reusing(config), inputs()
    bare = pixart()
    mixed = given.at(torch.tensor([900, 100]))
    with torch.no_grad():
        assert torch.equal(denoise(transformer, mixed), denoise(bare, mixed))
    transformer.train()
    with torch.no_grad():
        later = given.at(torch.tensor([100, 100]))
        assert torch.equal(denoise(transformer, later), denoise(bare, later))


@both_forms
def test_a_copy_goes_on_alone_and_threads_do_not_meet(config: ReuseConfig) -> None:
    transformer = reusing(config)
    prompts = [inputs(seed=seed) for seed in range(4)]
    alone = [sample(transformer, given) for given in prompts]
    sample(transformer, prompts[0], LEVELS[:2])
    assert torch.equal(sample(deepcopy(transformer), prompts[1]), alone[1])
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda given: sample(transformer, given), prompts * 10))
    assert all(torch.equal(found, alone[i % 4]) for i, found in enumerate(together))


@both_forms
def test_inference_mode_is_a_run_of_its_own(config: ReuseConfig) -> None:
    transformer, given = reusing(config), inputs()
    with torch.inference_mode():
        denoise(transformer, given.at(torch.tensor([990, 990])))
    with torch.no_grad():
        outside = denoise(transformer, given.at(torch.tensor([700, 700])))
    assert outside.isfinite().all()


def test_memory_goes_with_the_prompts_embeddings_and_the_summary_tells_it() -> None:
    transformer, given = reusing(), inputs()
    sample(transformer, given)
    held = transformer.diffcr.current.runs
    # Three layers' keys and values, inputs and updates: 8 tensors of 2 x 16 tokens of width 32.
    assert [t.memory for t in held.values()] == [8 * 2 * 16 * 32 * 4]
    assert "MiB" in diffcr.summary(transformer)
    del given
    assert not held


def test_a_trajectory_of_ones_own() -> None:
    transformer, given = reusing(), inputs()
    expected = sample(transformer, given)
    with diffcr.trajectory(transformer):
        assert torch.equal(sample(transformer, given), expected)
        assert transformer.diffcr.current.runs
    assert not transformer.diffcr.current.runs
    with pytest.raises(DiffCRError, match="keeps nothing from step to step"):
        diffcr.trajectory(_plain()).__enter__()


def _plain() -> nn.Module:
    transformer = pixart()
    attach(transformer)
    return transformer


def test_a_pipeline_is_called_as_before_and_twice_gives_the_same() -> None:
    pipe = tiny_pixart_pipeline()
    reuser = attach(pipe, TOKENS)
    runs = [final_latents(pipe, 8) for _ in range(2)]
    assert torch.equal(*runs)
    assert isinstance(reuser, TokenReuser) and not reuser.current.runs
