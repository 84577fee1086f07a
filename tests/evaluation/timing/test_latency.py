"""Turns, warm-up, ratios; no test asserts a time."""

from __future__ import annotations

from itertools import cycle
from time import sleep

import pytest
import torch
from torch import nn

from diffcr.binding.attachment import attach
from diffcr.binding.lora import add_lora
from diffcr.errors import DiffCRError
from diffcr.evaluation.modes import evaluating, without_adapters
from diffcr.evaluation.timing.latency import (
    LatencyRatio,
    Timing,
    compare_latency,
    median_interval,
    time_interleaved,
)
from diffcr.evaluation.timing.speed import denoiser_latency, pipeline_latency
from diffcr.methods.diffcr.config import DiffCRConfig
from tests.hosts import denoise, inputs, pixart, scramble
from tests.pipelines import tiny_pixart_pipeline


def test_calls_are_timed_in_turns_after_a_warm_up() -> None:
    order: list[str] = []
    timings = time_interleaved(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=3, warmup=2
    )
    assert order == ["a", "b"] * 5
    assert len(timings["a"].samples) == len(timings["b"].samples) == 3
    assert all(sample >= 0 for sample in timings["a"].samples)


def test_the_ratio_is_the_median_of_pairs() -> None:
    compared = LatencyRatio(Timing((1.0, 10.0, 2.0)), Timing((0.5, 9.0, 3.0)))
    assert compared.ratio == pytest.approx(0.9)
    assert compared.baseline.median == 2.0
    written = compared.to_json_dict()
    assert (written["dense"], written["compressed"]) == (2.0, 3.0)
    assert written["interval"] == [0.5, 1.5] and written["control_interval"] is None


@pytest.mark.parametrize(("count", "ends"), [(1, (0, 0)), (5, (0, 4)), (6, (0, 5)), (9, (1, 7))])
def test_the_median_lies_within_its_interval(count: int, ends: tuple[int, int]) -> None:
    assert median_interval([float(value) for value in reversed(range(count))]) == ends


def test_pairs_that_scatter_are_followed_by_more() -> None:
    pauses = cycle([0.001, 0.004])
    compared = compare_latency(
        lambda: sleep(0.001), lambda: sleep(next(pauses)), repeats=6, warmup=0
    )
    assert compared.control is not None
    assert len(compared.baseline.samples) == len(compared.control.samples) == 24
    steady = Timing((1.0,) * 6)
    assert not LatencyRatio(steady, Timing((0.5,) * 6), steady).needs_more


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(DiffCRError, match="repeats is 0"):
        compare_latency(lambda: None, lambda: None, repeats=0)


def test_modes_are_put_back() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Dropout())
    model[1].eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, True, False]


def test_adapters_are_left_out_and_put_back_bit_for_bit() -> None:
    transformer = pixart()
    bare, names = denoise(transformer, inputs()), list(transformer.state_dict())
    add_lora(transformer, rank=2)
    for name, parameter in transformer.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    adapted = denoise(transformer, inputs())
    assert not torch.allclose(adapted, bare)
    with without_adapters(transformer):
        assert torch.equal(denoise(transformer, inputs()), bare)
        assert list(transformer.state_dict()) == names
    assert torch.equal(denoise(transformer, inputs()), adapted)


def test_a_pipeline_is_timed_dense_and_compressed_and_stays_as_it_was() -> None:
    pipe = tiny_pixart_pipeline()
    compressor = attach(pipe, DiffCRConfig(timestep_regions=2))
    scramble(compressor)
    add_lora(pipe.transformer, rank=2)
    pipe.transformer.train()
    seen: list[bool] = []
    handle = pipe.transformer.register_forward_hook(lambda *_: seen.append(compressor.enabled))
    timed = denoiser_latency(pipe, batch_size=2, repeats=2, warmup=1)
    assert len(timed.baseline.samples) == len(timed.candidate.samples) == 2
    # Two regions a sweep, the dense sweep first and last.
    assert seen == [False, False, True, True, False, False] * 3
    whole = pipeline_latency(pipe, ["a red circle"], num_inference_steps=2, repeats=1, warmup=0)
    assert len(whole.candidate.samples) == 1
    handle.remove()
    assert compressor.enabled
    assert pipe.transformer.training
    assert any("lora_A" in name for name in pipe.transformer.state_dict())
