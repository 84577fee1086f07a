"""Token reuse: state belongs to one trajectory, and no call sees another's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffcr
from diffcr.binding.attachment import attach, detach
from diffcr.binding.lora import add_lora
from diffcr.binding.model import disabled
from diffcr.checkpoint.contenders import build, parse_contender
from diffcr.checkpoint.loading import load
from diffcr.checkpoint.saving import save
from diffcr.errors import DiffCRError
from diffcr.methods.reuse.config import ReuseConfig
from diffcr.methods.reuse.reuser import TokenReuser
from tests.hosts import Inputs, denoise, inputs, pixart
from tests.pipelines import tiny_pixart_pipeline

_CONFIG = ReuseConfig(0.5, "tokens", dense_above=0.85)
_STEPS = ReuseConfig(0.5, "steps", dense_above=0.85)
both = pytest.mark.parametrize("config", [_CONFIG, _STEPS], ids=["tokens", "steps"])
_LEVELS = (990, 700, 500, 300, 100)


def _attached(config: ReuseConfig = _CONFIG) -> nn.Module:
    transformer = pixart()
    attach(transformer, config)
    return transformer


def _moved(given: Inputs, step: int) -> Inputs:
    """The latents of a later step: every token changes, some more than others."""
    generator = torch.Generator().manual_seed(100 + step)
    shape = given.latents.shape[1:]
    change = torch.randn(shape, generator=generator) * torch.rand(shape, generator=generator)
    return replace(given, latents=given.latents + (0.3 * step * change).to(given.latents.dtype))


@torch.no_grad()
def _sample(transformer: nn.Module, given: Inputs, levels: tuple[int, ...] = _LEVELS) -> Tensor:
    """Outputs of a sampling run, [steps, B, 8, h, w]."""
    timesteps = [torch.full_like(given.timesteps, level) for level in levels]
    return torch.stack(
        [denoise(transformer, _moved(given.at(t), step)) for step, t in enumerate(timesteps)]
    )


def test_a_ratio_of_zero_changes_no_bit_and_keeps_nothing() -> None:
    transformer, given = pixart(), inputs()
    bare = _sample(transformer, given)
    reuser = attach(transformer, ReuseConfig(0.0))
    assert torch.equal(_sample(transformer, given), bare)
    assert isinstance(reuser, TokenReuser) and not reuser.current.trajectories


@both
def test_dense_steps_are_the_bare_models_and_later_ones_come_close(config: ReuseConfig) -> None:
    transformer, given = pixart(), inputs()
    bare = _sample(transformer, given)
    attach(transformer, config)
    reused = _sample(transformer, given)
    assert torch.equal(reused[0], bare[0])
    assert not torch.equal(reused[1:], bare[1:])
    stale = (bare[1:] - bare[:1]).norm()
    assert (reused[1:] - bare[1:]).norm() < 0.5 * stale
    detach(transformer)
    assert torch.equal(_sample(transformer, given), bare)


def test_inputs_that_do_not_change_give_the_same_output() -> None:
    transformer, given = _attached(ReuseConfig(0.5, "tokens", drift=0.0)), inputs()
    with torch.no_grad():
        denoise(transformer, given.at(torch.tensor([990, 990])))
        # The timestep's modulation is all that would move.
        transformer.adaln_single = _Frozen(transformer.adaln_single, given)
        first = denoise(transformer, given.at(torch.tensor([980, 980])))
        second = denoise(transformer, given.at(torch.tensor([500, 500])))
    torch.testing.assert_close(second, first, atol=1e-5, rtol=0)


class _Frozen(nn.Module):
    """A timestep embedding of one timestep."""

    def __init__(self, embedding: nn.Module, given: Inputs) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, timestep: Tensor, *args: object, **kwargs: object) -> object:
        return self.embedding(torch.full_like(timestep, 500), *args, **kwargs)


def test_only_the_kept_tokens_pass_through_the_blocks() -> None:
    transformer, given = _attached(), inputs()
    seen: list[int] = []
    for block in transformer.transformer_blocks:
        block.ff.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
    _sample(transformer, given, (990, 500))
    assert seen == [16, 16, 16, 8, 8, 8]


def test_steps_that_are_skipped_run_no_block_and_keep_one_tensor_a_token() -> None:
    transformer, given = _attached(_STEPS), inputs()
    seen: list[int] = []
    transformer.transformer_blocks[0].ff.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].shape[1])
    )
    _sample(transformer, given, (990, 800, 700, 600, 500, 400))
    assert seen == [16] * 3
    (run,) = transformer.diffcr.current.trajectories.values()
    assert run.memory == 2 * 2 * 16 * 32 * 4
    assert transformer.diffcr.visited_regions([0.99, 0.8, 0.7, 0.6, 0.5, 0.4]) == [1, 0, 1, 0, 1, 0]


@both
def test_another_prompt_a_rising_level_and_another_size_begin_anew(config: ReuseConfig) -> None:
    transformer, given = _attached(config), inputs()
    expected = _sample(transformer, given)
    other = replace(inputs(seed=7), prompt_embeds=torch.randn(2, 5, 32))
    for levels in (_LEVELS, _LEVELS[:2], (600,)):
        _sample(transformer, other, levels)
        assert torch.equal(_sample(transformer, given), expected)
    # The same embeddings, aborted half way, then from the noise again.
    _sample(transformer, given, _LEVELS[:3])
    assert torch.equal(_sample(transformer, given), expected)
    larger = replace(inputs(size=16), prompt_embeds=given.prompt_embeds)
    _sample(transformer, larger)
    assert torch.equal(_sample(transformer, given), expected)


@both
def test_image_to_image_of_another_prompt_begins_dense_lower(
    config: ReuseConfig,
) -> None:
    transformer, given = _attached(config), inputs()
    bare = pixart()
    _sample(transformer, inputs(seed=8))
    start = _sample(transformer, given, (400, 200))
    assert torch.equal(start[0], _sample(bare, given, (400, 200))[0])


@both
def test_an_error_within_a_call_spoils_no_later_trajectory(config: ReuseConfig) -> None:
    transformer, given = _attached(config), inputs()
    expected = _sample(transformer, given)
    broken = transformer.transformer_blocks[1].ff.register_forward_pre_hook(_fail)
    with pytest.raises(RuntimeError, match="broken"):
        _sample(transformer, given)
    broken.remove()
    assert torch.equal(_sample(transformer, given), expected)


def _fail(module: nn.Module, args: object) -> None:
    raise RuntimeError("broken")


@both
def test_the_halves_of_guidance_in_one_call_or_in_two(config: ReuseConfig) -> None:
    transformer, given = _attached(config), inputs()
    halves = [given.only(slice(0, 1)), given.only(slice(1, 2))]
    halves = [replace(h, latents=given.latents[:1]) for h in halves]
    doubled = replace(given, latents=given.latents[:1].repeat(2, 1, 1, 1))
    together = _sample(transformer, doubled)
    outputs: list[list[Tensor]] = [[], []]
    with torch.no_grad():
        for step, level in enumerate(_LEVELS):
            for half, found in zip(halves, outputs, strict=True):
                found.append(denoise(transformer, _moved(half.at(torch.tensor([level])), step)))
    apart = torch.stack([torch.cat(pair) for pair in zip(*outputs, strict=True)])
    torch.testing.assert_close(apart, together, atol=1e-5, rtol=0)


@both
def test_neighbours_never_change_a_result(config: ReuseConfig) -> None:
    transformer, given = _attached(config), inputs(batch=3)
    together = _sample(transformer, given)
    # The change of the latents is the same for all samples of a batch.
    other = replace(given, latents=given.latents.clone(), prompt_embeds=given.prompt_embeds.clone())
    other.latents[1:] += 1
    other.prompt_embeds[1:] += 1
    assert torch.equal(_sample(transformer, other)[:, 0], together[:, 0])


@both
def test_a_batch_of_mixed_levels_and_training_compute_everything(config: ReuseConfig) -> None:
    transformer, given = _attached(config), inputs()
    bare = pixart()
    mixed = given.at(torch.tensor([900, 100]))
    with torch.no_grad():
        assert torch.equal(denoise(transformer, mixed), denoise(bare, mixed))
    transformer.train()
    with torch.no_grad():
        later = given.at(torch.tensor([100, 100]))
        assert torch.equal(denoise(transformer, later), denoise(bare, later))


@both
def test_a_copy_goes_on_alone_and_threads_do_not_meet(config: ReuseConfig) -> None:
    transformer = _attached(config)
    prompts = [inputs(seed=seed) for seed in range(4)]
    alone = [_sample(transformer, given) for given in prompts]
    _sample(transformer, prompts[0], _LEVELS[:2])
    assert torch.equal(_sample(deepcopy(transformer), prompts[1]), alone[1])
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda given: _sample(transformer, given), prompts * 10))
    assert all(torch.equal(found, alone[i % 4]) for i, found in enumerate(together))


def test_memory_goes_with_the_prompts_embeddings_and_the_summary_tells_it() -> None:
    transformer, given = _attached(), inputs()
    _sample(transformer, given)
    held = transformer.diffcr.current.trajectories
    # Three layers' keys and values, inputs and updates: 8 tensors of 2 x 16 tokens of width 32.
    assert [t.memory for t in held.values()] == [8 * 2 * 16 * 32 * 4]
    assert "MiB" in diffcr.summary(transformer)
    del given
    assert not held


def test_a_trajectory_of_ones_own() -> None:
    transformer, given = _attached(), inputs()
    expected = _sample(transformer, given)
    with diffcr.trajectory(transformer):
        assert torch.equal(_sample(transformer, given), expected)
        assert transformer.diffcr.current.trajectories
    assert not transformer.diffcr.current.trajectories
    with pytest.raises(DiffCRError, match="keeps nothing from step to step"):
        diffcr.trajectory(_plain()).__enter__()


def _plain() -> nn.Module:
    transformer = pixart()
    attach(transformer)
    return transformer


def test_it_is_saved_loaded_set_and_switched_off(tmp_path: Path) -> None:
    transformer, given = _attached(), inputs()
    bare = _sample(pixart(), given)
    transformer.diffcr.set_compression_ratio(0.25)
    expected = _sample(transformer, given)
    save(transformer, tmp_path / "reuse")
    other = pixart()
    load(other, tmp_path / "reuse")
    assert other.diffcr.config.compression_ratio == 0.25
    assert torch.equal(_sample(other, given), expected)
    with disabled(other):
        assert torch.equal(_sample(other, given), bare)
    with pytest.raises(DiffCRError, match="compression_ratio is 0.99"):
        other.diffcr.set_compression_ratio(0.99)


def test_a_forward_alone_is_not_timed() -> None:
    with pytest.raises(DiffCRError, match="time it with diffcr eval"):
        build(parse_contender("reuse:0.5"), pixart())


@pytest.mark.parametrize("granularity", ["block", "model"])
def test_compiling_is_refused(granularity: Any) -> None:
    with pytest.raises(DiffCRError, match="run it uncompiled"):
        diffcr.compile(_attached(), granularity)


def test_steps_are_counted_as_samplers_call_them() -> None:
    transformer, given = _attached(_STEPS), inputs()
    seen: list[int] = []
    transformer.transformer_blocks[0].ff.register_forward_pre_hook(
        lambda module, args: seen.append(1)
    )
    # Heun's: every level but the first and the last twice.
    levels = (950, 800, 800, 600, 600, 400, 400, 200)
    computed = []
    for level in levels:
        seen.clear()
        with torch.no_grad():
            denoise(transformer, given.at(torch.full_like(given.timesteps, level)))
        computed.append(len(seen))
    assert transformer.diffcr.visited_regions([t / 1000 for t in levels]) == computed


@both
def test_what_is_left_begins_anew(config: ReuseConfig) -> None:
    transformer, given = _attached(config), inputs()
    bare = _sample(pixart(), given, (500,))
    for leave in ("ratio 0", "disabled", "written"):
        _sample(transformer, given, (990, 800))
        if leave == "ratio 0":
            transformer.diffcr.set_compression_ratio(0.0)
            _sample(transformer, given, (700,))
            transformer.diffcr.set_compression_ratio(config.compression_ratio)
        elif leave == "disabled":
            with disabled(transformer):
                _sample(transformer, given, (700,))
        else:
            given.prompt_embeds.mul_(1)
        assert torch.equal(_sample(transformer, given, (500,)), bare), leave


def test_a_call_of_another_size_that_fails_leaves_nothing() -> None:
    transformer, given = _attached(), inputs()
    larger = replace(inputs(size=16), prompt_embeds=given.prompt_embeds)
    bare = _sample(pixart(), given, (500,))
    _sample(transformer, given, (990,))
    broken = transformer.transformer_blocks[1].ff.register_forward_pre_hook(_fail)
    with pytest.raises(RuntimeError, match="broken"):
        _sample(transformer, larger, (700,))
    broken.remove()
    assert torch.equal(_sample(transformer, given, (500,)), bare)


@both
def test_gradients_flow_through_several_steps(config: ReuseConfig) -> None:
    transformer, given = _attached(config), inputs()
    latents = given.latents.clone().requires_grad_()
    total: Tensor = torch.zeros(())
    for level in (990, 800, 600, 400):
        timesteps = torch.full_like(given.timesteps, level)
        output = denoise(transformer, Inputs(latents, given.prompt_embeds, timesteps))
        total = total + output.square().sum()
    total.backward()
    assert latents.grad is not None and latents.grad.isfinite().all()
    transformer.enable_gradient_checkpointing()
    with pytest.raises(DiffCRError, match="disable_gradient_checkpointing"):
        denoise(transformer, Inputs(latents, given.prompt_embeds, given.timesteps))


@both
def test_inference_mode_is_a_run_of_its_own(config: ReuseConfig) -> None:
    transformer, given = _attached(config), inputs()
    with torch.inference_mode():
        denoise(transformer, given.at(torch.tensor([990, 990])))
    with torch.no_grad():
        outside = denoise(transformer, given.at(torch.tensor([700, 700])))
    assert outside.isfinite().all()


def test_a_budget_is_the_share_of_tokens_of_a_run() -> None:
    transformer, given = _attached(ReuseConfig(0.5, "tokens", dense_above=0.8)), inputs()
    seen: list[int] = []
    transformer.transformer_blocks[0].ff.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].shape[1])
    )
    levels = tuple(range(975, 0, -50))
    for budget in (1.0, 0.8, 0.5, 0.25):
        transformer.diffcr.set_budget(budget)
        seen.clear()
        _sample(transformer, given, levels)
        # A token is whole: of 16 a step may skip one too few.
        assert sum(seen) / (16 * len(levels)) == pytest.approx(budget, abs=0.8 / 16)
    bare = pixart()
    transformer.diffcr.set_budget(1)
    assert torch.equal(_sample(transformer, given, levels), _sample(bare, given, levels))
    for budget in (1.01, 0.2, 0):
        with pytest.raises(DiffCRError, match=f"budget is {budget}: give a value from 0.24 to 1"):
            transformer.diffcr.set_budget(budget)


def test_a_lora_that_is_added_later_takes_part() -> None:
    transformer, given = _attached(), inputs()
    before = _sample(transformer, given)
    add_lora(transformer, rank=2)
    transformer.eval()
    assert torch.equal(_sample(transformer, given), before)
    for name, parameter in transformer.named_parameters():
        if ".lora_B" in name:
            parameter.data.normal_(0, 0.1)
    assert not torch.equal(_sample(transformer, given), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtypes_are_the_bare_models(dtype: torch.dtype) -> None:
    transformer, given = _attached().to(dtype), inputs().to(dtype)
    assert _sample(transformer, given).dtype == dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        bare = _sample(pixart(), inputs())
        assert _sample(_attached(), inputs()).dtype == bare.dtype


def test_a_pipeline_is_called_as_before_and_twice_gives_the_same() -> None:
    pipe = tiny_pixart_pipeline()
    reuser = attach(pipe, _CONFIG)
    runs = [
        pipe(
            "a red circle",
            num_inference_steps=8,
            output_type="latent",
            generator=torch.manual_seed(0),
            use_resolution_binning=False,
        ).images
        for _ in range(2)
    ]
    assert torch.equal(*runs)
    assert isinstance(reuser, TokenReuser) and not reuser.current.trajectories
