"""Captured forwards are replayed where they hold, and nothing stale is ever returned.

Without a GPU the backend is one that records: the operations that a call ran, on the tensors that
it ran them on. Like a CUDA graph it sees no later Python and reads the same memory, so a key that
is too coarse or a change of the model that goes unnoticed returns wrong numbers here as there.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

import diffcr
from diffcr.binding.attachment import attach
from diffcr.binding.cuda_graphs import (
    CaptureError,
    ForwardGraphs,
    Replay,
    graph_forwards,
    release_graphs,
)
from diffcr.binding.model import disabled, get_compressor
from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.methods.reuse.config import ReuseConfig
from diffcr.methods.tome.config import ToMeConfig
from tests.hosts import denoise, inputs, pixart, trained_pixart

needs_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


class RecordingBackend:
    """Records the operations of a call and runs them again."""

    device_type = "cpu"

    def capture(self, call: Callable[[], Any]) -> Replay:
        recorded = make_fx(call)()
        return lambda: recorded()


class UnableBackend:
    """Cannot capture anything."""

    device_type = "cpu"

    def capture(self, call: Callable[[], Any]) -> Replay:
        raise CaptureError("it waits for the device")


@torch.no_grad()
def _output(transformer: nn.Module, given: Any) -> Tensor:
    return denoise(transformer, given)


def _pair() -> tuple[nn.Module, nn.Module, ForwardGraphs]:
    """An eager model, one like it whose forwards are captured, and its graphs."""
    eager, graphed = trained_pixart(layers=2), trained_pixart(layers=2)
    return eager, graphed, graph_forwards(graphed, RecordingBackend())


def test_replays_equal_eager_calls_for_every_region_and_shape() -> None:
    eager, graphed, graphs = _pair()
    for seed in (1, 2):
        for batch, size, timestep in ((2, 8, 100), (2, 8, 900), (1, 6, 900)):
            given = inputs(batch, seed, size, timestep)
            assert torch.equal(_output(graphed, given), _output(eager, given))
    # What the second seed ran was there, and two calls of one region are one graph.
    assert graphs.captured == len(graphs) == 3
    first = _output(graphed, inputs(seed=1))
    kept = first.clone()
    _output(graphed, inputs(seed=2))
    assert torch.equal(first, kept) and not graphs.fallbacks


def test_other_ratios_and_weights_are_seen() -> None:
    eager, graphed, graphs = _pair()
    given = inputs()
    _output(graphed, given)
    for model in (eager, graphed):
        get_compressor(model).set_compression_ratios(0.5)
    assert torch.equal(_output(graphed, given), _output(eager, given))
    assert graphs.captured == 2
    with torch.no_grad():
        for model in (eager, graphed):
            model.transformer_blocks[0].ff.net[2].weight.mul_(2)
    assert torch.equal(_output(graphed, given), _output(eager, given))
    assert graphs.captured == 2, "a graph reads weights where they are"
    handles = [
        model.transformer_blocks[0].ff.register_forward_hook(_halved) for model in (eager, graphed)
    ]
    assert torch.equal(_output(graphed, given), _output(eager, given))
    assert graphs.captured == 3, "a replay calls no hook"
    for handle in handles:
        handle.remove()
    for model in (eager, graphed):
        model.double()
    # Moved: what was captured reads memory that is no longer the model's.
    wide = given.to(torch.float64)
    assert torch.equal(_output(graphed, wide), _output(eager, wide))
    assert graphs.captured == 4 and len(graphs) == 1


def _halved(module: Any, args: Any, output: Any) -> Any:
    return output / 2


def test_adapters_that_come_switch_and_go_are_seen() -> None:
    eager, graphed, graphs = _pair()
    given, captured = inputs(), 0
    for change in (_add_style, _move_style, _halve_style):
        for model in (eager, graphed):
            change(model)
        found = _output(graphed, given)
        assert torch.equal(found, _output(eager, given))
        # Values that change in place need no new graph, all else does.
        captured += change is not _move_style
        assert graphs.captured == captured


def _add_style(model: nn.Module) -> None:
    torch.manual_seed(5)
    config = LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    inject_adapter_in_model(config, model, adapter_name="style")


def _move_style(model: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_A" in name:
                parameter.mul_(3)


def _halve_style(model: nn.Module) -> None:
    for module in model.modules():
        for adapter in getattr(module, "scaling", ()):
            module.scaling[adapter] *= 0.5


def test_what_cannot_be_replayed_runs_as_it_is_and_says_why_once() -> None:
    eager, graphed, graphs = _pair()
    given = inputs()
    with pytest.warns(DiffCRWarning, match="without a CUDA graph: gradients are on"):
        found = denoise(graphed, given)
    assert found.requires_grad and torch.equal(found, denoise(eager, given))
    mixed = given.at(torch.tensor([100, 900]))
    with pytest.warns(DiffCRWarning, match="several timestep regions"):
        assert torch.equal(_output(graphed, mixed), _output(eager, mixed))
    _output(graphed, mixed)
    with disabled(graphed), disabled(eager), pytest.warns(DiffCRWarning, match="disabled"):
        assert torch.equal(_output(graphed, given), _output(eager, given))
    assert sorted(graphs.fallbacks.values()) == [1, 1, 2] and graphs.captured == 0
    release_graphs(graphed)
    unable = graph_forwards(graphed, UnableBackend())
    with pytest.warns(DiffCRWarning, match="cannot be captured: it waits for the device"):
        assert torch.equal(_output(graphed, given), _output(eager, given))
    assert len(unable) == 0


def test_copies_have_graphs_of_their_own_and_detach_frees() -> None:
    eager, graphed, graphs = _pair()
    given = inputs()
    _output(graphed, given)
    copy = deepcopy(graphed)
    with torch.no_grad():
        copy.proj_out.weight.zero_()
    assert not _output(copy, given).equal(_output(graphed, given))
    assert torch.equal(_output(graphed, given), _output(eager, given))
    diffcr.detach(graphed)
    assert len(graphs) == 0 and "forward" not in vars(graphed)
    diffcr.detach(eager)
    assert torch.equal(_output(graphed, given), _output(eager, given))


def test_merging_is_replayed_and_reuse_refused() -> None:
    eager, graphed = pixart(layers=2), pixart(layers=2)
    for model in (eager, graphed):
        attach(model, ToMeConfig(0.3, "block"))
    graph_forwards(graphed, RecordingBackend())
    for seed in (1, 2):
        given = inputs(seed=seed)
        assert torch.equal(_output(graphed, given), _output(eager, given))
    reusing = pixart()
    attach(reusing, ReuseConfig(0.5))
    with pytest.raises(DiffCRError, match="keeps what steps computed"):
        graph_forwards(reusing, RecordingBackend())


def test_one_call_asks_for_a_gpu() -> None:
    transformer = trained_pixart()
    with pytest.raises(DiffCRError, match="CUDA graphs need a CUDA GPU: the model is on cpu"):
        diffcr.compile(transformer, mode="cuda-graphs")
    with pytest.raises(DiffCRError, match="takes no other option"):
        diffcr.compile(transformer, "model", mode="cuda-graphs")


@needs_a_gpu
def test_on_a_gpu_replays_equal_eager_calls() -> None:
    eager, graphed = trained_pixart().cuda(), trained_pixart().cuda()
    diffcr.compile(graphed, mode="cuda-graphs")
    for seed in (1, 2, 3):
        for timestep in (100, 900):
            given = inputs(seed=seed, timestep=timestep)
            moved = type(given)(*(tensor.cuda() for tensor in vars(given).values()))
            assert torch.equal(_output(graphed, moved), _output(eager, moved))
    assert vars(graphed)["diffcr_graphs"].captured == 2
