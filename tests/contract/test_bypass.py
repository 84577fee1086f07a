"""What tokens that bypass a layer get from it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import diffcr
from diffcr.binding.attachment import attach
from diffcr.binding.compilation import compile as compile_model
from diffcr.binding.model import parameter_groups
from diffcr.cost.counting import count_flops
from diffcr.errors import DiffCRError
from diffcr.hosts.input_size import InputSize
from diffcr.methods.bound import BOUND, bound_block
from diffcr.methods.diffcr.bypass import mapped
from diffcr.methods.diffcr.compressor import Compressor
from diffcr.methods.diffcr.config import DiffCRConfig, MoDConfig
from tests.hosts import denoise, inputs, pixart, rankings, trained_pixart
from tests.tiny_hosts import TINY_HOSTS

_LINEAR = DiffCRConfig(bypass="linear", bypass_rank=4)
_HOSTS = ("PixArtTransformer2DModel", "FluxTransformer2DModel", "WanTransformer3DModel")


def _scramble_bypass(compressor: Compressor, size: float = 0.1) -> None:
    assert compressor.linear_bypass is not None
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in compressor.linear_bypass.parameters():
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator))


def _linear_pixart(config: DiffCRConfig = _LINEAR) -> nn.Module:
    transformer = trained_pixart(config)
    _scramble_bypass(transformer.diffcr)
    return transformer


@pytest.mark.parametrize("name", _HOSTS)
def test_at_a_ratio_of_zero_any_map_leaves_the_bare_model(name: str) -> None:
    host = TINY_HOSTS[name]
    transformer, given = host.make(), host.inputs(2, 1)
    with torch.no_grad():
        bare = transformer(**given)[0]
        _scramble_bypass(attach(transformer, _LINEAR))
        with pytest.warns(diffcr.errors.DiffCRWarning, match="every compression ratio is 0"):
            assert torch.equal(transformer(**given)[0], bare)


@pytest.mark.parametrize("name", _HOSTS)
@pytest.mark.parametrize("ratio", [0.5, 1.0])
def test_a_skipped_token_gets_its_map_and_no_other_row_changes(name: str, ratio: float) -> None:
    host = TINY_HOSTS[name]
    outputs = {}
    for bypass in ("identity", "linear"):
        transformer = host.make()
        config = DiffCRConfig(max_compression_ratio=1.0, bypass=bypass, bypass_rank=4)  # type: ignore[arg-type]
        compressor = attach(transformer, config)
        compressor.set_compression_ratios(ratio)
        if bypass == "linear":
            _scramble_bypass(compressor)
        before, outputs[bypass] = _observe(transformer, host.inputs(2, 1))
    assert compressor.linear_bypass is not None
    bound = bound_block(_first_block(transformer))
    added = mapped(compressor.linear_bypass.of_block(bound.group, bound.row), 2, before)
    plain, linear = outputs.values()
    skipped = (plain == before).all(-1)
    assert skipped.float().mean() == pytest.approx(ratio, abs=0.1)
    assert torch.equal(linear[skipped], (before + added)[skipped])
    assert torch.equal(linear[~skipped], plain[~skipped])


def _first_block(transformer: nn.Module) -> nn.Module:
    found = [m for m in transformer.modules() if getattr(vars(m).get(BOUND), "layer", -1) == 0]
    return found[0]


def _observe(transformer: nn.Module, given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Routed tokens before and after the first block."""
    seen = []

    def look(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        bound = bound_block(module)
        found = bound.inputs(bound.name_arguments(args, kwargs))
        seen.append((found.routed.clone(), found.routed_of(output).clone()))

    block = _first_block(transformer)
    with torch.no_grad(), block.register_forward_hook(look, with_kwargs=True):
        transformer(**given)
    return seen[0]


@pytest.mark.parametrize("training", [False, True])
def test_neighbours_and_regions_change_nothing(training: bool) -> None:
    config = DiffCRConfig(bypass="linear", bypass_rank=4, branching="both")
    transformer = _linear_pixart(config).train(training)
    mine, others = inputs(4), inputs(4, seed=9)
    together = inputs(4)
    together.latents[1:] = others.latents[1:]
    assert torch.equal(denoise(transformer, mine)[0], denoise(transformer, together)[0])
    given = inputs(4).at(torch.tensor([900, 10, 300, 20]))
    mixed = denoise(transformer, given)
    for i in range(4):
        alone = denoise(transformer, given.only(slice(i, i + 1)))
        assert (alone - mixed[i : i + 1]).abs().max() < 1e-5


def test_gradients_of_the_maps_agree_with_finite_differences() -> None:
    transformer = _linear_pixart().double().train()
    compressor = transformer.diffcr
    for part in compressor.linear_bypass.parameters():
        part.data = part.data.double()
    compressor.seed_branches(3)
    given = inputs().to(torch.float64)

    def loss() -> Tensor:
        with compressor.holding_rankings(rankings()):
            return denoise(transformer, given).square().mean()

    loss().backward()
    generator = torch.Generator().manual_seed(0)
    for parameter in compressor.linear_bypass.parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            parameter.add_(direction, alpha=1e-5)
            above = loss()
            parameter.sub_(direction, alpha=2e-5)
            slope = (above - loss()) / 2e-5
            parameter.add_(direction, alpha=1e-5)
        assert float((parameter.grad * direction).sum()) == pytest.approx(float(slope), rel=1e-5)


def test_attached_maps_change_nothing_and_both_factors_can_learn() -> None:
    plain, transformer = trained_pixart(), trained_pixart(_LINEAR)
    assert torch.equal(denoise(plain, inputs()), denoise(transformer, inputs()))
    denoise(transformer, inputs()).square().mean().backward()
    maps = transformer.diffcr.linear_bypass
    assert all((up.grad != 0).any() for up in maps.up.values())
    assert all((down != 0).any() for down in maps.down.values())
    groups = parameter_groups(transformer, 1e-3, 2e-3, weight_decay=0.1)
    ours = [g for g in groups if any(p is q for p in g["params"] for q in maps.parameters())]
    assert [(g["lr"], g["weight_decay"], len(g["params"])) for g in ours] == [(1e-3, 0.0, 3)]


def test_compiled_blocks_agree_and_a_copy_is_its_own() -> None:
    transformer = _linear_pixart()
    with torch.no_grad():
        expected = denoise(transformer, inputs())
        other = copy.deepcopy(transformer)
        compile_model(transformer, backend="aot_eager")
        assert (denoise(transformer, inputs()) - expected).abs().max() < 1e-5
        for parameter in transformer.diffcr.linear_bypass.parameters():
            parameter.zero_()
        assert torch.equal(denoise(other, inputs()), expected)
    torch._dynamo.reset()


def test_maps_are_saved_and_kept_in_float32_and_older_checkpoints_have_none(tmp_path: Path) -> None:
    transformer = _linear_pixart()
    diffcr.save(transformer, tmp_path / "linear")
    loaded = pixart()
    compressor = diffcr.load(loaded, tmp_path / "linear")
    assert compressor.config == _LINEAR
    assert torch.equal(denoise(loaded, inputs()), denoise(transformer, inputs()))
    half = loaded.to(torch.bfloat16)
    assert {p.dtype for p in half.diffcr.linear_bypass.parameters()} == {torch.float32}
    assert denoise(half, inputs().to(torch.bfloat16)).dtype == torch.bfloat16
    assert DiffCRConfig().bypass == MoDConfig().bypass == "identity"


def test_a_map_costs_its_two_products() -> None:
    size = InputSize(5, 8, 8)
    costs = []
    for bypass in ("identity", "linear"):
        transformer = pixart()
        config = MoDConfig(0.5, bypass=bypass, bypass_rank=4)  # type: ignore[arg-type]
        attach(transformer, config)
        costs.append(count_flops(transformer, size).mean.linear)
    assert costs[1] - costs[0] == 3 * 2 * (2 * 16 * 32 * 4)


def test_a_bypass_can_be_changed_and_a_rank_above_the_width_is_refused() -> None:
    transformer = trained_pixart()
    before = denoise(transformer, inputs())
    transformer.diffcr.set_bypass("linear", 4)
    _scramble_bypass(transformer.diffcr)
    assert not torch.equal(denoise(transformer, inputs()), before)
    transformer.diffcr.set_bypass("identity")
    assert torch.equal(denoise(transformer, inputs()), before)
    with pytest.raises(DiffCRError, match="bypass_rank is 40: give at most the width, 32"):
        transformer.diffcr.set_bypass("linear", 40)
