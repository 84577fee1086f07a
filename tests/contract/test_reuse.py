"""Token reuse: what a step computes, and what it refuses."""

from __future__ import annotations

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
from tests.reuse import STEPS, both_forms, reusing, sample


def test_a_ratio_of_zero_changes_no_bit_and_keeps_nothing() -> None:
    transformer, given = pixart(), inputs()
    bare = sample(transformer, given)
    reuser = attach(transformer, ReuseConfig(0.0))
    assert torch.equal(sample(transformer, given), bare)
    assert isinstance(reuser, TokenReuser) and not reuser.current.runs


@both_forms
def test_dense_steps_are_the_bare_models_and_later_ones_come_close(config: ReuseConfig) -> None:
    transformer, given = pixart(), inputs()
    bare = sample(transformer, given)
    attach(transformer, config)
    reused = sample(transformer, given)
    assert torch.equal(reused[0], bare[0])
    assert not torch.equal(reused[1:], bare[1:])
    stale = (bare[1:] - bare[:1]).norm()
    assert (reused[1:] - bare[1:]).norm() < 0.5 * stale
    detach(transformer)
    assert torch.equal(sample(transformer, given), bare)


def test_inputs_that_do_not_change_give_the_same_output() -> None:
    transformer, given = reusing(ReuseConfig(0.5, "tokens", drift=0.0)), inputs()
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
    transformer, given = reusing(), inputs()
    seen: list[int] = []
    for block in transformer.transformer_blocks:
        block.ff.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
    sample(transformer, given, (990, 500))
    assert seen == [16, 16, 16, 8, 8, 8]


def test_steps_that_are_skipped_run_no_block_and_keep_one_tensor_a_token() -> None:
    transformer, given = reusing(STEPS), inputs()
    seen: list[int] = []
    transformer.transformer_blocks[0].ff.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].shape[1])
    )
    sample(transformer, given, (990, 800, 700, 600, 500, 400))
    assert seen == [16] * 3
    (run,) = transformer.diffcr.current.runs.values()
    assert run.memory == 2 * 2 * 16 * 32 * 4
    assert transformer.diffcr.visited_regions([0.99, 0.8, 0.7, 0.6, 0.5, 0.4]) == [1, 0, 1, 0, 1, 0]


def test_it_is_saved_loaded_set_and_switched_off(tmp_path: Path) -> None:
    transformer, given = reusing(), inputs()
    bare = sample(pixart(), given)
    transformer.diffcr.set_compression_ratio(0.25)
    expected = sample(transformer, given)
    save(transformer, tmp_path / "reuse")
    other = pixart()
    load(other, tmp_path / "reuse")
    assert other.diffcr.config.compression_ratio == 0.25
    assert torch.equal(sample(other, given), expected)
    with disabled(other):
        assert torch.equal(sample(other, given), bare)
    with pytest.raises(DiffCRError, match="compression_ratio is 0.99"):
        other.diffcr.set_compression_ratio(0.99)


def test_a_forward_alone_is_not_timed() -> None:
    with pytest.raises(DiffCRError, match="time it with diffcr eval"):
        build(parse_contender("reuse:0.5"), pixart())


@pytest.mark.parametrize("granularity", ["block", "model"])
def test_compiling_is_refused(granularity: Any) -> None:
    with pytest.raises(DiffCRError, match="run it uncompiled"):
        diffcr.compile(reusing(), granularity)


def test_steps_are_counted_as_samplers_call_them() -> None:
    transformer, given = reusing(STEPS), inputs()
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


@both_forms
def test_gradients_flow_through_several_steps(config: ReuseConfig) -> None:
    transformer, given = reusing(config), inputs()
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


def test_a_budget_is_the_share_of_tokens_of_a_run() -> None:
    transformer, given = reusing(ReuseConfig(0.5, "tokens", dense_above=0.8)), inputs()
    seen: list[int] = []
    transformer.transformer_blocks[0].ff.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].shape[1])
    )
    levels = tuple(range(975, 0, -50))
    for budget in (1.0, 0.8, 0.5, 0.25):
        transformer.diffcr.set_budget(budget)
        seen.clear()
        sample(transformer, given, levels)
        # A token is whole: of 16 a step may skip one too few.
        assert sum(seen) / (16 * len(levels)) == pytest.approx(budget, abs=0.8 / 16)
    bare = pixart()
    transformer.diffcr.set_budget(1)
    assert torch.equal(sample(transformer, given, levels), sample(bare, given, levels))
    for budget in (1.01, 0.2, 0):
        with pytest.raises(DiffCRError, match=f"budget is {budget}: give a value from 0.24 to 1"):
            transformer.diffcr.set_budget(budget)


def test_a_lora_that_is_added_later_takes_part() -> None:
    transformer, given = reusing(), inputs()
    before = sample(transformer, given)
    add_lora(transformer, rank=2)
    transformer.eval()
    assert torch.equal(sample(transformer, given), before)
    for name, parameter in transformer.named_parameters():
        if ".lora_B" in name:
            parameter.data.normal_(0, 0.1)
    assert not torch.equal(sample(transformer, given), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtypes_are_the_bare_models(dtype: torch.dtype) -> None:
    transformer, given = reusing().to(dtype), inputs().to(dtype)
    assert sample(transformer, given).dtype == dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        bare = sample(pixart(), inputs())
        assert sample(reusing(), inputs()).dtype == bare.dtype
