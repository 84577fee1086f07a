"""Tokens that bypass a layer reuse what it added to them, within one sampling run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffcr
from diffcr.binding.attachment import attach
from diffcr.binding.compilation import compile as compile_model
from diffcr.binding.model import disabled
from diffcr.cost.sections import flops_section
from diffcr.errors import DiffCRError
from diffcr.methods.diffcr.config import DiffCRConfig, MoDConfig
from diffcr.methods.diffcr.kept_updates import KeptUpdates, UpdateRun
from diffcr.training.recipe import TrainingRecipe
from tests.hosts import denoise, inputs, pixart, scramble_routers
from tests.pipelines import final_latents, tiny_pixart_pipeline
from tests.reuse import LEVELS, moved, sample
from tests.tiny_hosts import TINY_HOSTS

_HALF = MoDConfig(0.5, bypass="reuse")


def _reusing(config: Any = _HALF, layers: int = 3) -> nn.Module:
    transformer = pixart(layers=layers)
    scramble_routers(attach(transformer, config))
    return transformer


@pytest.mark.parametrize(
    "name", ["PixArtTransformer2DModel", "FluxTransformer2DModel", "WanTransformer3DModel"]
)
def test_a_run_begins_as_the_bare_model_and_stays_nearer_to_it(name: str) -> None:
    host = TINY_HOSTS[name]
    given = host.inputs(2, 1)
    outputs = {}
    with torch.no_grad():
        for bypass in ("bare", "identity", "reuse"):
            transformer = host.make()
            if bypass != "bare":
                attach(transformer, MoDConfig(0.5, bypass=bypass))  # type: ignore[arg-type]
            calls = [host.with_timesteps(given, [level] * 2) for level in (0.9, 0.8, 0.7)]
            outputs[bypass] = torch.stack([transformer(**call)[0] for call in calls])
    assert torch.equal(outputs["reuse"][0], outputs["bare"][0])
    gaps = {n: (outputs[n] - outputs["bare"])[1:].norm() for n in ("identity", "reuse")}
    assert 0 < gaps["reuse"] < 0.7 * gaps["identity"]


def test_at_a_ratio_of_zero_nothing_changes_and_nothing_is_kept() -> None:
    transformer, given = pixart(), inputs()
    bare = sample(transformer, given)
    attach(transformer, DiffCRConfig(bypass="reuse"))
    with pytest.warns(diffcr.errors.DiffCRWarning, match="every compression ratio is 0"):
        assert torch.equal(sample(transformer, given), bare)
    assert all(not run.layers for run in transformer.diffcr.current.known())


def test_skipped_tokens_get_their_last_update_and_none_is_skipped_twice() -> None:
    transformer = _reusing(layers=1)
    calls: list[tuple[Tensor, Tensor]] = []
    transformer.transformer_blocks[0].register_forward_hook(
        lambda _, args, kwargs, output: calls.append((args[0], output)), with_kwargs=True
    )
    given = inputs()
    sample(transformer, given)
    updates = [output - tokens for tokens, output in calls]
    reused = [
        (now - before).abs().amax(-1) < 1e-6
        for before, now in zip(updates, updates[1:], strict=False)
    ]
    assert [r.float().mean() for r in reused] == [0.5] * 4
    assert not any((a & b).any() for a, b in zip(reused, reused[1:], strict=False))


def test_stale_tokens_come_first_the_oldest_of_them_before_others() -> None:
    ages = torch.tensor([[1, 3, 2, 5, 1]])
    kept = KeptUpdates(torch.zeros(1, 5, 2), ages)
    ranking = torch.tensor([[4, 0, 1, 2, 3]])
    assert kept.stale_first(ranking, 2).tolist() == [[3, 1, 4, 0, 2]]
    assert kept.stale_first(ranking, 5).tolist() == ranking.tolist()
    run = UpdateRun(layers={0: kept}, calls=1)
    run.computed(0, torch.tensor([[3, 4]]))
    assert kept.ages.tolist() == [[2, 4, 3, 1, 1]]
    assert run.kept(0, torch.zeros(1, 5, 2)) is None
    run.calls += 1
    assert run.kept(0, torch.zeros(1, 5, 2)) is kept


def test_another_run_another_size_and_an_error_begin_anew() -> None:
    transformer, given = _reusing(), inputs()
    expected = sample(transformer, given)
    sample(transformer, given, LEVELS[:3])
    assert torch.equal(sample(transformer, given), expected)
    sample(transformer, replace(inputs(size=16), prompt_embeds=given.prompt_embeds))
    assert torch.equal(sample(transformer, given), expected)
    begun = sample(_reusing(), given, (500,))
    sample(transformer, given, (990, 700))
    with disabled(transformer):
        sample(transformer, given, (600,))
    assert torch.equal(sample(transformer, given, (500,)), begun)


def test_a_call_that_fails_leaves_no_layer_with_updates_of_an_earlier_one() -> None:
    transformer, given = _reusing(), inputs()
    sample(transformer, given, (990,))
    broken = transformer.transformer_blocks[0].ff.register_forward_pre_hook(_fail)
    with pytest.raises(RuntimeError, match="broken"):
        sample(transformer, given, (700,))
    broken.remove()
    begun = sample(_reusing(), given, (500,))
    assert torch.equal(sample(transformer, given, (500,)), begun)


def _fail(module: nn.Module, args: object) -> None:
    raise RuntimeError("broken")


def test_halves_of_guidance_in_one_call_or_in_two_and_neighbours() -> None:
    transformer, given = _reusing(), inputs()
    together = sample(transformer, given)
    outputs: list[list[Tensor]] = [[], []]
    halves = [given.only(slice(0, 1)), given.only(slice(1, 2))]
    with torch.no_grad():
        for step, level in enumerate(LEVELS):
            for half, found in zip(halves, outputs, strict=True):
                found.append(denoise(transformer, moved(half.at(torch.tensor([level])), step)))
    apart = torch.stack([torch.cat(pair) for pair in zip(*outputs, strict=True)])
    torch.testing.assert_close(apart, together, atol=1e-5, rtol=0)
    other = replace(given, latents=given.latents.clone(), prompt_embeds=given.prompt_embeds.clone())
    other.latents[1:] += 1
    assert torch.equal(sample(transformer, other)[:, 0], together[:, 0])


def test_copies_and_threads_do_not_meet() -> None:
    transformer = _reusing()
    prompts = [inputs(seed=seed) for seed in range(3)]
    alone = [sample(transformer, given) for given in prompts]
    sample(transformer, prompts[0], LEVELS[:2])
    assert torch.equal(sample(deepcopy(transformer), prompts[1]), alone[1])
    with ThreadPoolExecutor(3) as threads:
        together = list(threads.map(lambda given: sample(transformer, given), prompts * 4))
    assert all(torch.equal(found, alone[i % 3]) for i, found in enumerate(together))


def test_layers_that_skip_nothing_keep_nothing_and_memory_goes_with_the_prompt() -> None:
    transformer, given = _reusing(DiffCRConfig(bypass="reuse")), inputs()
    ratios = torch.zeros(3, 4)
    ratios[1, 2] = 0.5
    transformer.diffcr.set_compression_ratios(ratios)
    with diffcr.trajectory(transformer):
        sample(transformer, given)
        (run,) = transformer.diffcr.current.runs.values()
        assert run.layers.keys() == {1}
        # Updates of 2 x 16 tokens of width 32, and their ages.
        assert run.memory == 2 * 16 * (32 * 4 + 8)
        assert "kept of past steps: 0.0 MiB" in diffcr.summary(transformer)
    assert not transformer.diffcr.current.runs
    sample(transformer, given)
    held = transformer.diffcr.current.runs
    assert len(held) == 1
    del given
    assert not held


def test_a_pipeline_counts_its_dense_step_and_twice_gives_the_same() -> None:
    pipe = tiny_pixart_pipeline()
    compressor = attach(pipe.transformer, MoDConfig(0.5))
    skipping = flops_section(pipe, 4)
    compressor.set_bypass("reuse")
    reusing = flops_section(pipe, 4)
    dense = reusing["dense"]["total"]
    expected = dense / 4 + 3 / 4 * skipping["compressed"]["total"]
    assert reusing["compressed"]["total"] == pytest.approx(expected)
    runs = [final_latents(pipe, 4) for _ in range(2)]
    assert torch.equal(*runs) and not compressor.current.runs


def test_compiling_and_training_are_refused() -> None:
    transformer = _reusing()
    with pytest.raises(DiffCRError, match="mod keeps what steps computed"):
        compile_model(transformer)
    transformer.train()
    with pytest.raises(DiffCRError, match="'reuse' needs the steps of a sampling run"):
        denoise(transformer, inputs())
    with pytest.raises(DiffCRError, match="method.bypass is 'reuse', which is for sampling"):
        TrainingRecipe("reusing", method=_HALF)
