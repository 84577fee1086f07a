"""Neighbouring layers that share a router (`route_every`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import diffcr
from diffcr.binding.attachment import attach
from diffcr.binding.compilation import compile as compile_model
from diffcr.core.select import rank_tokens
from diffcr.errors import DiffCRError
from diffcr.evaluation.router_maps import recording_routers
from diffcr.methods.bound import bound_block
from diffcr.methods.diffcr.branch import run_branch
from diffcr.methods.diffcr.config import DiffCRConfig, MoDConfig
from tests.hosts import denoise, gradients, inputs, pixart, scramble, trained_pixart
from tests.tiny_hosts import TINY_HOSTS

_PAIRS = DiffCRConfig(route_every=2)
_HOSTS = ("PixArtTransformer2DModel", "FluxTransformer2DModel", "WanTransformer3DModel")


def _forward(transformer: nn.Module, given: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        output: Tensor = transformer(**given)[0]
    return output


@pytest.mark.parametrize("name", _HOSTS)
def test_attached_it_is_the_bare_model(name: str) -> None:
    host = TINY_HOSTS[name]
    transformer = host.make()
    bare = _forward(transformer, host.inputs(2, 1))
    attach(transformer, _PAIRS)
    with pytest.warns(diffcr.errors.DiffCRWarning, match="every compression ratio is 0"):
        assert torch.equal(_forward(transformer, host.inputs(2, 1)), bare)


@pytest.mark.parametrize("name", _HOSTS)
def test_layers_take_the_scores_of_the_first_that_shares_their_router(name: str) -> None:
    host = TINY_HOSTS[name]
    transformer = host.make()
    compressor = attach(transformer, _PAIRS)
    scramble(compressor)
    compressor.set_compression_ratios(0.5)
    scores: dict[int, Tensor] = {}

    def look(block: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        bound = bound_block(block)
        given = bound.inputs(bound.name_arguments(args, kwargs)).with_whole_rows()
        first = compressor.ranking_layer(bound.layer)
        if first == bound.layer:
            scores[first] = compressor.router_logits(first, given.routed)
        kept = compressor.context.regions[0].layers[bound.layer].kept_tokens
        ranking = rank_tokens(scores[first])
        expected = run_branch(block, given.arguments, scores[first], ranking, kept, "identity")
        assert torch.equal(given.routed_of(output), given.routed_of(expected))

    blocks = [m for m in transformer.modules() if "diffcr_bound" in vars(m)]
    for block in blocks:
        block.register_forward_hook(look, with_kwargs=True)
    _forward(transformer, host.inputs(1, 1))
    assert 1 < len(scores) < len(blocks)
    assert len(scores) == sum(len(router) for router in compressor.routers.values())


def test_layers_that_share_a_router_keep_nested_tokens() -> None:
    transformer = trained_pixart(_PAIRS, layers=4)
    ratios = torch.tensor([0.3, 0.6, 0.5, 0.5])
    transformer.diffcr.set_compression_ratios(ratios.unsqueeze(1).expand(4, 4))
    with recording_routers(transformer) as calls, torch.no_grad():
        denoise(transformer, inputs())
    more, less, third, fourth = calls[0].kept
    assert (more & less).equal(less) and more.sum() > less.sum()
    assert third.equal(fourth) and not third.equal(less)


@pytest.mark.parametrize("training", [False, True])
def test_neighbours_and_mixed_regions_change_nothing(training: bool) -> None:
    transformer = trained_pixart(DiffCRConfig(branching="both", route_every=3)).train(training)
    given = inputs(4).at(torch.tensor([900, 10, 300, 20]))
    mixed = denoise(transformer, given)
    for i in range(4):
        alone = denoise(transformer, given.only(slice(i, i + 1)))
        assert (alone - mixed[i : i + 1]).abs().max() < 1e-5


def _training_model(checkpointing: bool) -> nn.Module:
    transformer = trained_pixart(DiffCRConfig(branching="both", route_every=2)).double().train()
    for router in transformer.diffcr.routers.values():
        router.data = 0.1 * router.data.double()
    if checkpointing:
        transformer.enable_gradient_checkpointing()
    return transformer


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_of_a_shared_router_agree_with_finite_differences(checkpointing: bool) -> None:
    transformer = _training_model(checkpointing)
    compressor, given = transformer.diffcr, inputs().to(torch.float64)

    def loss() -> Tensor:
        return denoise(transformer, given).square().mean()

    loss().backward()
    (router,) = compressor.routers.values()
    for row, slope in enumerate(router.grad.norm(dim=1)):
        # Along the gradient; so small a step moves no token past another.
        direction = torch.zeros_like(router)
        direction[row] = router.grad[row] / slope
        values = []
        with torch.no_grad():
            for step in (1e-6, -2e-6):
                router.add_(direction, alpha=step)
                values.append(float(loss()))
            router.add_(direction, alpha=1e-6)
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(float(slope), rel=1e-4)


def test_checkpointing_recomputes_the_same_gradients() -> None:
    found = []
    for checkpointing in (False, True):
        transformer = _training_model(checkpointing)
        denoise(transformer, inputs().to(torch.float64)).square().mean().backward()
        found.append(gradients(transformer))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_reentrant_checkpointing_is_refused() -> None:
    transformer = _training_model(False)
    transformer.enable_gradient_checkpointing(partial(checkpoint, use_reentrant=True))
    given = inputs().to(torch.float64)
    given.latents.requires_grad_()
    with pytest.raises(DiffCRError, match="use_reentrant=False, or route_every=1"):
        denoise(transformer, given).square().mean().backward()


@pytest.mark.parametrize("trained", ["attn1.to_q", "transformer_blocks.2"])
def test_a_model_trains_whose_routers_are_frozen(trained: str) -> None:
    transformer = _training_model(False).requires_grad_(False)
    for name, parameter in transformer.named_parameters():
        parameter.requires_grad_(trained in name and "diffcr" not in name)
    denoise(transformer, inputs().to(torch.float64)).square().mean().backward()
    assert gradients(transformer)


def _saved_and_loaded(transformer: nn.Module, directory: Path) -> nn.Module:
    loaded = pixart()
    diffcr.load(loaded, diffcr.save(transformer, directory / "saved"))
    assert loaded.diffcr.config.route_every == 2
    return loaded


def _compiled(transformer: nn.Module, directory: Path) -> nn.Module:
    compile_model(transformer, backend="aot_eager")
    return transformer


def _traced_as_a_whole(transformer: nn.Module, directory: Path) -> nn.Module:
    torch._dynamo.reset()
    compiled: nn.Module = torch.compile(transformer, backend="aot_eager")  # type: ignore[assignment]
    return compiled


@pytest.mark.parametrize("change", [_saved_and_loaded, _compiled, _traced_as_a_whole])
def test_it_stays_the_same_model(
    change: Callable[[nn.Module, Path], nn.Module], tmp_path: Path
) -> None:
    transformer = trained_pixart(_PAIRS)
    with torch.no_grad():
        expected = denoise(transformer, inputs(4))
        found = denoise(change(transformer, tmp_path), inputs(4))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_what_skipped_tokens_get_is_their_layers_own() -> None:
    linear = trained_pixart(DiffCRConfig(route_every=2, bypass="linear", bypass_rank=4))
    assert len(linear.diffcr.linear_bypass.down["transformer_blocks"]) == 3
    reusing = pixart()
    attach(reusing, MoDConfig(0.5, route_every=2, bypass="reuse"))
    with torch.no_grad():
        dense = denoise(pixart(), inputs())
        assert torch.equal(denoise(reusing, inputs()), dense)
        given = inputs().at(torch.full((2,), 500))
        assert torch.isfinite(denoise(reusing, given)).all()


@pytest.mark.parametrize("shared", [0, -1, 1.5])
def test_a_number_of_layers_that_is_none_is_refused(shared: Any) -> None:
    with pytest.raises(DiffCRError, match="route_every"):
        MoDConfig(0.5, route_every=shared)
