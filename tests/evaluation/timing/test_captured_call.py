"""Forwards replayed from CUDA graphs: the eager result, or a clear refusal."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from diffcr.binding.cuda_graphs import CaptureError
from diffcr.checkpoint.contenders import DENSE, build, parse_contender
from diffcr.errors import DiffCRError
from diffcr.evaluation.timing.bench import BenchOptions, bench
from diffcr.evaluation.timing.captured_call import CapturedCall
from diffcr.evaluation.timing.speed import forward_inputs
from diffcr.evaluation.timing.subject import Subject
from tests.hosts import pixart

_ON_A_GPU = torch.cuda.is_available()
needs_a_gpu = pytest.mark.skipif(not _ON_A_GPU, reason="needs a CUDA GPU")


def _subject(device: str) -> Subject:
    return Subject("tiny", pixart().to(device).requires_grad_(False), 5, 8, True)


def test_a_cpu_has_no_cuda_graphs() -> None:
    options = BenchOptions(pairs=1, cuda_graph=True)
    with pytest.raises(DiffCRError, match="need a CUDA GPU: the model is on cpu"):
        bench(_subject("cpu"), [parse_contender("diffcr:0.3")], options)


@needs_a_gpu
@pytest.mark.parametrize("method", ["mod:0.2", "diffcr:0.3", "tome:0.3:block", "pruning:0.3"])
def test_a_replay_computes_what_the_forward_computes(method: str) -> None:
    subject = _subject("cuda")
    model = build(parse_contender(method), subject.transformer)
    inputs = forward_inputs(model, 2, 8, 8, 5, [500])[500]

    @torch.no_grad()
    def forward() -> Tensor:
        output: Tensor = model(**inputs)[0]
        return output

    captured = CapturedCall(forward)
    for seed in range(3):
        # A graph reads its inputs where they are.
        torch.manual_seed(seed)
        inputs["hidden_states"].normal_()
        assert torch.equal(captured(), forward())


@needs_a_gpu
def test_a_call_that_waits_for_the_gpu_is_refused_and_the_next_one_works() -> None:
    ones = torch.ones(3, device="cuda")
    with pytest.raises(CaptureError):
        CapturedCall(lambda: ones * float(ones.sum()))()
    assert CapturedCall(partial(torch.mul, ones, 2))().tolist() == [2, 2, 2]


@needs_a_gpu
def test_bench_times_replays_beside_replays() -> None:
    options = BenchOptions(pairs=2, cuda_graph=True)
    record = bench(_subject("cuda"), [parse_contender("diffcr:0.3")], options)
    measured = record.results["batches"]["1"]
    assert measured["diffcr:0.3, CUDA graph"]["baseline"] == f"{DENSE.name}, CUDA graph"
    assert "peak_memory" not in measured["dense, CUDA graph"]
