"""Compiled and eager compute the same, in a bounded number of graphs."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from diffcr.binding.attachment import attach, detach
from diffcr.binding.compilation import compile as compile_model
from diffcr.binding.compilation import uncompile_blocks
from diffcr.core.select import rank_tokens
from diffcr.errors import DiffCRError
from diffcr.methods.bound import bound_block
from diffcr.methods.diffcr.config import DiffCRConfig
from tests.hosts import denoise, gradients, inputs, pixart, rankings, trained_pixart
from tests.tiny_hosts import TINY_HOSTS


@pytest.fixture(autouse=True)
def shared_compile_cache() -> Iterator[None]:
    os.environ.setdefault(
        "TORCHINDUCTOR_CACHE_DIR", os.path.join(tempfile.gettempdir(), "diffcr-inductor")
    )
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def _train_step(transformer: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    transformer.zero_grad()
    transformer.diffcr.seed_branches(3)
    with transformer.diffcr.holding_rankings(rankings()):
        output = denoise(transformer, inputs())
    output.square().mean().backward()
    return output, gradients(transformer)


def test_compiled_blocks_agree_in_outputs_and_gradients() -> None:
    transformer = trained_pixart(DiffCRConfig(branching="both")).train()
    eager_output, eager = _train_step(transformer)
    compile_model(transformer)
    output, compiled = _train_step(transformer)
    assert (output - eager_output).abs().max() < 1e-5
    assert eager.keys() == compiled.keys()
    for name, gradient in eager.items():
        assert (gradient - compiled[name]).abs().max() < 1e-5, name


def test_a_compiled_model_agrees_and_selects_the_same_tokens() -> None:
    transformer = trained_pixart()
    given = inputs(4)
    with torch.no_grad():
        eager = denoise(transformer, given)
        compile_model(transformer, granularity="model")
        compiled = denoise(transformer, given)
    assert (eager - compiled).abs().max() < 1e-5


@contextmanager
def _kept_tokens(transformer: nn.Module) -> Iterator[list[Tensor]]:
    """Collects which tokens, [B, N] bool, every block keeps in the calls inside the context."""
    collected: list[Tensor] = []

    def look(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        bound = bound_block(block)
        hidden_states = bound.name_arguments(args, kwargs)["hidden_states"]
        logits = bound.attached.router_logits(bound.layer, hidden_states)
        plan = bound.attached.context.regions[0].layers[bound.layer]
        indices = rank_tokens(logits)[:, : plan.kept_tokens]
        collected.append(torch.zeros_like(logits, dtype=torch.bool).scatter(1, indices, True))

    hooks = [
        block.register_forward_pre_hook(look, with_kwargs=True)
        for block in transformer.transformer_blocks
    ]
    try:
        yield collected
    finally:
        for hook in hooks:
            hook.remove()


def test_compiled_blocks_keep_the_tokens_that_eager_ones_keep() -> None:
    transformer = trained_pixart(layers=6, sample_size=32)
    calls = [
        inputs(8, seed=timestep, size=32, timestep=timestep) for timestep in (100, 300, 600, 900)
    ]
    selections = []
    for compiled in (False, True):
        if compiled:
            compile_model(transformer)
        with torch.no_grad(), _kept_tokens(transformer) as kept:
            for given in calls:
                denoise(transformer, given)
        selections.append(torch.stack(kept))
    eager, compiled_ones = selections
    assert eager.shape == (24, 8, 256) and 0.3 < eager.float().mean() < 0.9
    assert (eager == compiled_ones).float().mean() >= 0.999


def test_graphs_are_shared_among_layers() -> None:
    counter = CompileCounterWithBackend("aot_eager")
    transformer = trained_pixart(layers=8)
    compile_model(transformer, backend=counter)
    distinct = set()
    with torch.no_grad():
        for timestep in (100, 300, 600, 900):
            denoise(transformer, inputs(timestep=timestep))
        distinct = {k for row in transformer.diffcr.kept_tokens(16) for k in row}
    assert len(distinct) > 3
    assert counter.frame_count <= len(distinct) + 2


def test_a_compiled_model_has_a_graph_per_region() -> None:
    counter = CompileCounterWithBackend("aot_eager")
    transformer = trained_pixart()
    compile_model(transformer, granularity="model", backend=counter)
    with torch.no_grad():
        for timestep in (100, 300, 600, 900, 150, 950):
            denoise(transformer, inputs(timestep=timestep))
    assert counter.frame_count <= transformer.diffcr.config.timestep_regions + 1


def test_a_copy_of_a_compiled_model_has_its_own_weights_and_detach_restores() -> None:
    transformer = trained_pixart()
    expected = denoise(transformer, inputs())
    compile_model(transformer, granularity="model", backend="aot_eager")
    other = copy.deepcopy(transformer)
    with torch.no_grad():
        assert (denoise(other, inputs()) - expected).abs().max() < 1e-5
        for parameter in other.parameters():
            parameter.zero_()
        assert denoise(other, inputs()).abs().max() == 0
        assert (denoise(transformer, inputs()) - expected).abs().max() < 1e-5
    detach(transformer)
    assert "forward" not in vars(transformer)
    assert torch.equal(denoise(transformer, inputs()), denoise(pixart(), inputs()))


def test_the_mlp_gate_compiles() -> None:
    transformer = trained_pixart(DiffCRConfig(gate="sigmoid-mlp"))
    with torch.no_grad(), transformer.diffcr.holding_rankings(rankings()):
        eager = denoise(transformer, inputs())
        compile_model(transformer, backend="aot_eager")
        assert (denoise(transformer, inputs()) - eager).abs().max() < 1e-5


def test_torch_compile_from_outside_takes_a_graph_per_region() -> None:
    transformer = trained_pixart(DiffCRConfig(timestep_regions=2))
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(transformer, backend=counter, fullgraph=True)
    with torch.no_grad():
        for ratio in (0.3, 0.5):
            transformer.diffcr.set_compression_ratios(ratio)
            for timestep in (100, 900):
                given = inputs(timestep=timestep)
                assert torch.equal(denoise(compiled, given), denoise(transformer, given))
    assert counter.frame_count <= 4


def test_blocks_compiled_one_by_one_are_refused() -> None:
    host = TINY_HOSTS["FluxTransformer2DModel"]
    transformer: Any = host.make()
    attach(transformer)
    transformer.compile_repeated_blocks(fullgraph=True)
    with pytest.raises(DiffCRError, match=r"compile_repeated_blocks.*diffcr\.compile\(model\)"):
        transformer(**host.inputs(1, 0))


def test_dynamic_shapes_share_graphs_among_numbers_of_tokens() -> None:
    transformer = trained_pixart(layers=6, sample_size=32)
    calls = [inputs(2, size=size, timestep=t) for size in (32, 24) for t in (100, 300, 600, 900)]
    found, graphs = [], []
    for dynamic in (None, False, True):
        torch._dynamo.reset()
        counter = CompileCounterWithBackend("aot_eager")
        if dynamic is not None:
            uncompile_blocks(transformer)
            compile_model(transformer, backend=counter, dynamic=dynamic)
        with torch.no_grad():
            found.append([denoise(transformer, given) for given in calls])
        graphs.append(counter.frame_count)
    for eager, *compiled in zip(*found, strict=True):
        assert all((eager - other).abs().max() < 1e-5 for other in compiled)
    assert graphs[2] <= 4 < graphs[1]


def test_in_bfloat16_compiled_blocks_differ_no_more_than_those_of_the_bare_model() -> None:
    given, held = inputs().to(torch.bfloat16), rankings()
    bare, routed = pixart().bfloat16(), trained_pixart().bfloat16()
    errors = []
    with torch.no_grad(), routed.diffcr.holding_rankings(held):
        for transformer in (bare, routed):
            eager = denoise(transformer, given).float()
            if transformer is routed:
                compile_model(transformer)
            else:
                for block in transformer.transformer_blocks:
                    block.compile(dynamic=False, fullgraph=True)
            errors.append((denoise(transformer, given).float() - eager).norm() / eager.norm())
    assert 0 < errors[1] <= 2 * errors[0] < 0.02
