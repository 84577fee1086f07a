"""Compiled and eager compute the same, in a bounded number of graphs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from diffcr.compilation import compile as compile_model
from diffcr.config import DiffCRConfig
from tests.hosts import denoise, gradients, inputs, rankings, trained_pixart


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


def test_the_mlp_gate_compiles() -> None:
    transformer = trained_pixart(DiffCRConfig(gate="sigmoid-mlp"))
    with torch.no_grad(), transformer.diffcr.holding_rankings(rankings()):
        eager = denoise(transformer, inputs())
        compile_model(transformer, backend="aot_eager")
        assert (denoise(transformer, inputs()) - eager).abs().max() < 1e-5
