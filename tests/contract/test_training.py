"""Branches, gradients and gradient checkpointing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from diffcr.binding.attachment import attach, detach
from diffcr.binding.lora import add_lora
from diffcr.binding.model import disabled, get_compressor
from diffcr.methods.diffcr.config import DiffCRConfig
from tests.hosts import (
    denoise,
    gradients,
    inputs,
    pixart,
    rankings,
    scramble,
    trained_pixart,
)


def _loss(transformer: nn.Module, seed: int = 1, timestep: int = 600) -> Tensor:
    return denoise(transformer, inputs(seed=seed, timestep=timestep)).square().mean()


@pytest.mark.parametrize("checkpointed", [False, True])
def test_ratio_gradients_agree_with_finite_differences(checkpointed: bool) -> None:
    transformer = pixart().double().train()
    compressor = attach(transformer, DiffCRConfig(branching="both", max_compression_ratio=0.5))
    scramble(compressor)
    if checkpointed:
        transformer.enable_gradient_checkpointing()
    with torch.no_grad():
        compressor.ratios.copy_(
            torch.tensor([[0.0, 0.12, 0.5, 0.27], [0.303, 0.46, 0.0, 0.35], [0.05, 0.2, 0.49, 0.5]])
        )
    given = inputs(4).to(torch.float64).at(torch.tensor([100, 300, 600, 900]))

    def loss() -> Tensor:
        with compressor.holding_rankings(rankings(4)):
            return denoise(transformer, given).square().mean() + compressor.ratio_loss(3.0)

    loss().backward()
    step = 1e-5
    for layer in range(3):
        for region in range(4):
            ratio = compressor.ratios[layer, region].item()
            sign = -1 if ratio > 0.499 else 1
            with torch.no_grad():
                before = loss()
                compressor.ratios[layer, region] += sign * step
                after = loss()
                compressor.ratios[layer, region] = ratio
            numeric = sign * float(after - before) / step
            exact = float(compressor.ratios.grad[layer, region])
            assert abs(numeric - exact) < 1e-4 * max(1.0, abs(exact)), (layer, region)


@pytest.mark.parametrize("value", [0.0, 0.9])
def test_the_gradient_is_alive_at_both_bounds(value: float) -> None:
    transformer = trained_pixart(DiffCRConfig(branching="both")).train()
    with torch.no_grad():
        transformer.diffcr.ratios.fill_(value)
    _loss(transformer).backward()
    column = transformer.diffcr.ratios.grad[:, 2]
    assert (column != 0).all()
    assert (transformer.diffcr.ratios.grad[:, [0, 1, 3]] == 0).all()


def test_only_inward_gradients_pass_at_a_bound() -> None:
    compressor = trained_pixart().diffcr
    with torch.no_grad():
        compressor.ratios.copy_(torch.tensor([0.0, 0.0, 0.9, 0.9]).expand(3, 4))
    compressor.ratios.grad = torch.tensor([1.0, -1.0, 1.0, -1.0]).repeat(3, 1)
    compressor.block_outward_gradients()
    assert compressor.ratios.grad[0].tolist() == [0, -1, 1, 0]


def test_a_ratio_outside_is_used_clamped_and_finds_back() -> None:
    compressor = trained_pixart().diffcr
    with torch.no_grad():
        compressor.ratios.fill_(-0.2)
    assert compressor.learned_compression_ratios.eq(0).all()
    compressor.ratio_loss().backward()
    assert (compressor.ratios.grad < 0).all()
    compressor.project_ratios()
    assert compressor.ratios.eq(0).all()


def test_both_branches_are_mixed_by_proximity() -> None:
    outputs = {}
    for ratio in (0.2, 0.3, 0.23):
        transformer = pixart(layers=1).train()
        compressor = attach(transformer, DiffCRConfig(branching="both"))
        scramble(compressor)
        with torch.no_grad():
            compressor.ratios.fill_(ratio)
        blocks = []
        transformer.transformer_blocks[0].register_forward_hook(
            lambda *call, blocks=blocks: blocks.append(call[-1])
        )
        denoise(transformer, inputs())
        outputs[ratio] = blocks[0]
    expected = 0.7 * outputs[0.2] + 0.3 * outputs[0.3]
    assert (outputs[0.23] - expected).abs().max() < 1e-5


def test_sampled_branches_are_right_in_expectation() -> None:
    def gradient_and_output(branching: str, seeds: range) -> tuple[Tensor, Tensor]:
        transformer = pixart(layers=1).train()
        compressor = attach(transformer, DiffCRConfig(branching=branching))  # type: ignore[arg-type]
        scramble(compressor)
        with torch.no_grad():
            compressor.ratios.fill_(0.37)
        total = torch.zeros(())
        for seed in seeds:
            compressor.seed_branches(seed)
            output = denoise(transformer, inputs())
            total = total + output.mean().detach()
            (output.mean() / len(seeds)).backward()
        return compressor.ratios.grad[0, 2], total / len(seeds)

    exact, value = gradient_and_output("both", range(1))
    sampled, mean = gradient_and_output("sampled", range(900))
    assert abs(mean - value) < 0.02 * abs(value)
    assert abs(sampled - exact) < 0.15 * abs(exact)


def test_branch_draws_are_reproducible_from_their_seed() -> None:
    transformer = trained_pixart().train()
    losses = []
    for seed in (5, 5, 6, 8, 9):
        transformer.diffcr.seed_branches(seed)
        losses.append(_loss(transformer).item())
    assert losses[0] == losses[1]
    assert len(set(losses)) > 2


@pytest.mark.parametrize("branching", ["both", "sampled"])
def test_two_checkpointed_forwards_in_flight(branching: str) -> None:
    def run(checkpointed: bool) -> dict[str, Tensor]:
        transformer = trained_pixart(DiffCRConfig(branching=branching)).train()  # type: ignore[arg-type]
        if checkpointed:
            transformer.enable_gradient_checkpointing()
        transformer.diffcr.seed_branches(1)
        first = _loss(transformer, timestep=100)
        transformer.diffcr.seed_branches(2)
        second = _loss(transformer, seed=4, timestep=900)
        (first + second).backward()
        return gradients(transformer)

    plain, checkpointed = run(False), run(True)
    assert plain.keys() == checkpointed.keys()
    assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)


def test_the_checkpointing_function_is_the_hosts_again_after_detach() -> None:
    transformer = trained_pixart().train()
    transformer.enable_gradient_checkpointing()
    before = transformer._gradient_checkpointing_func
    for _ in range(2):
        _loss(transformer).backward()
    assert transformer._gradient_checkpointing_func.checkpoint is before
    detach(transformer)
    assert transformer._gradient_checkpointing_func is before


def test_every_parameter_is_in_the_graph_of_a_single_branch() -> None:
    transformer = trained_pixart(DiffCRConfig(mixing_probability=1e-9)).train()
    _loss(transformer).backward()
    missing = [n for n, p in transformer.named_parameters() if p.grad is None]
    assert missing == []


def test_lora_trains_adapters_routers_and_ratios_alone() -> None:
    transformer = trained_pixart().train()
    add_lora(transformer, rank=2)
    trainable = {n for n, p in transformer.named_parameters() if p.requires_grad}
    assert {n for n in trainable if "lora_" not in n} == {
        "diffcr.ratios",
        "diffcr.routers.transformer_blocks",
    }
    assert not any("diffcr" in n for n, m in transformer.named_modules() if hasattr(m, "lora_A"))
    _loss(transformer).backward()
    assert get_compressor(transformer).ratios.grad is not None


def test_bfloat16_autocast_trains_full_precision_ratios() -> None:
    transformer = trained_pixart().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = _loss(transformer)
    loss.backward()
    assert transformer.diffcr.ratios.grad.dtype == torch.float32
    assert transformer.diffcr.ratios.grad.isfinite().all()


def test_the_mlp_gate_leaves_nothing_behind_after_a_recomputation() -> None:
    transformer = trained_pixart(DiffCRConfig(gate="sigmoid-mlp")).train()
    transformer.enable_gradient_checkpointing()
    _loss(transformer).backward()
    with disabled(transformer):
        dense = denoise(transformer, inputs())
        assert torch.equal(denoise(copy.deepcopy(transformer), inputs()), dense)
    assert torch.equal(dense, denoise(pixart().train(), inputs()))


@pytest.mark.parametrize("branching", ["both", "sampled"])
def test_scales_of_regions_change_the_ratios_gradient_alone(branching: str) -> None:
    found = []
    for scales in (None, (1.0, 0.25, 3.0, 1.0)):
        transformer = trained_pixart(DiffCRConfig(branching=branching)).train()  # type: ignore[arg-type]
        transformer.diffcr.gradient_scales = scales
        transformer.diffcr.seed_branches(5)
        loss = _loss(transformer, timestep=300) + _loss(transformer, timestep=600)
        loss.backward()
        found.append((loss.detach(), gradients(transformer)))
    (plain_loss, plain), (scaled_loss, scaled) = found
    assert torch.equal(plain_loss, scaled_loss)
    ratios = plain.pop("diffcr.ratios") * torch.tensor([1.0, 0.25, 3.0, 1.0])
    assert torch.allclose(scaled.pop("diffcr.ratios"), ratios, rtol=1e-5)
    assert (ratios[:, 1:3] != 0).any() and not ratios[:, 0].any()
    assert all(torch.equal(plain[name], scaled[name]) for name in plain)
