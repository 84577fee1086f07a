"""The routed layer's kernels compute what the operations of `core/select.py` do."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from diffcr.binding.attachment import attach
from diffcr.binding.compilation import compile as compile_model
from diffcr.core.select import (
    gather_tokens,
    rank_tokens,
    router_logits,
    scale_update,
    scattered_positions,
)
from diffcr.errors import DiffCRWarning
from diffcr.methods.diffcr.config import DiffCRConfig
from diffcr.methods.diffcr.gpu import _kernels_on, kernels_for
from tests.hosts import denoise, inputs, pixart, trained_pixart

_ON_A_GPU = torch.cuda.is_available()
_DEVICE = "cuda" if _ON_A_GPU else "cpu"
# Samples, tokens, width, kept tokens: less and more than what a program takes at a time.
_SHAPES = [(1, 1, 1, 1), (2, 70, 96, 31), (2, 3, 2100, 2)]


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    pytest.importorskip("triton")
    return importlib.import_module("diffcr.methods.diffcr.kernels")


def _randn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, device=_DEVICE).to(dtype)


@pytest.mark.parametrize("shape", _SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_scores_are_those_of_float32(
    kernels: ModuleType, shape: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    batch, tokens, width, _ = shape
    hidden_states, router = _randn(batch, tokens, width, dtype=dtype), _randn(width)
    exact = router_logits(hidden_states.double(), router.double())
    scores = kernels.score(hidden_states, router)
    assert scores.dtype == torch.float32
    assert (scores - exact).abs().max() < 1e-4


@pytest.mark.parametrize("shape", [(1, 1), (2, 70), (2, 1030), (1, 4100)])
def test_a_ranking_is_that_of_a_stable_sort(kernels: ModuleType, shape: tuple[int, int]) -> None:
    batch, tokens = shape
    # Ties, both zeros, infinities, and what a broken model scores. (Where a negative NaN belongs,
    # torch's sorts on a CPU and a GPU disagree.)
    logits = torch.randint(-9, 9, (batch, tokens), device=_DEVICE).float() / 4
    for value in (-0.0, torch.inf, -torch.inf, torch.nan):
        logits[0, torch.randint(tokens, (), device=_DEVICE)] = value
    scattered = scattered_positions(tokens, logits.device)
    ranking, places = kernels.rank(logits, scattered)
    assert torch.equal(ranking, rank_tokens(logits, scattered))
    assert torch.equal(
        ranking.gather(1, places.long()), torch.arange(tokens, device=_DEVICE).expand(batch, -1)
    )


@pytest.mark.parametrize("shape", _SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gate", ["identity", "sigmoid", "sigmoid-mlp"])
def test_tokens_are_gathered_gated_and_put_back(
    kernels: ModuleType, shape: tuple[int, int, int, int], dtype: torch.dtype, gate: str
) -> None:
    batch, tokens, width, kept = shape
    hidden_states = _randn(batch, tokens, width, dtype=dtype)
    logits = _randn(batch, tokens)
    ranking, places = kernels.rank(logits, scattered_positions(tokens, logits.device))
    indices = ranking[:, :kept]
    before = kernels.gather(hidden_states, ranking, kept)
    assert torch.equal(before, gather_tokens(hidden_states, indices))
    after = _randn(batch, kept, width, dtype=dtype)
    scores = logits.gather(1, indices)
    excess = {"identity": torch.tanh(scores / 2), "sigmoid": torch.sigmoid(scores) - 1}
    exact = after.float()
    if gate in excess:
        exact = scale_update(before.float(), exact, excess[gate])
    result = kernels.put_back(hidden_states, after, logits, places, gate)
    assert result.dtype == dtype
    error = (gather_tokens(result, indices).float() - exact).abs()
    # One rounding; Triton's interpreter cuts bfloat16 off.
    assert (error <= torch.finfo(dtype).eps * exact.abs() + 1e-6).all()
    bypassed = torch.ones(batch, tokens, dtype=torch.bool, device=_DEVICE)
    bypassed.scatter_(1, indices, False)
    assert torch.equal(result[bypassed], hidden_states[bypassed])


def test_a_score_of_0_leaves_every_bit(kernels: ModuleType) -> None:
    hidden_states, after = _randn(2, 30, 8), _randn(2, 20, 8)
    logits = torch.zeros(2, 30, device=_DEVICE)
    ranking, places = kernels.rank(logits, scattered_positions(30, logits.device))
    result = kernels.put_back(hidden_states, after, logits, places, "identity")
    assert torch.equal(gather_tokens(result, ranking[:, :20]), after)


@pytest.fixture
def route_by_kernels(kernels: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Turns the kernels on, on a CPU too."""
    target = "diffcr.methods.diffcr.forward.kernels_for"
    return lambda: monkeypatch.setattr(target, lambda hidden_states: kernels)


@pytest.mark.parametrize("route_every", [1, 2])
@pytest.mark.parametrize("gate", ["identity", "sigmoid", "sigmoid-mlp"])
def test_a_routed_model_is_the_same_model(
    route_by_kernels: Callable[[], None], gate: str, route_every: int
) -> None:
    config = DiffCRConfig(gate=gate, route_every=route_every)  # type: ignore[arg-type]
    transformer = trained_pixart(config).eval()
    given = inputs(4).at(torch.tensor([900, 10, 300, 20]))
    with torch.no_grad():
        plain = denoise(transformer, given)
        route_by_kernels()
        routed = denoise(transformer, given)
    torch.testing.assert_close(routed, plain, rtol=1e-5, atol=1e-5)
    assert not torch.equal(plain, denoise(pixart(), given))


@pytest.mark.parametrize("gate", ["identity", "sigmoid-mlp"])
def test_a_compiled_block_between_kernels_is_the_same_model(
    route_by_kernels: Callable[[], None], gate: str
) -> None:
    transformer = trained_pixart(DiffCRConfig(gate=gate), layers=6).eval()  # type: ignore[arg-type]
    given = inputs(4)
    counter = CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    with torch.no_grad():
        plain = denoise(transformer, given)
        compile_model(transformer, backend=counter)
        route_by_kernels()
        routed = denoise(transformer, given)
    torch.testing.assert_close(routed, plain, rtol=1e-5, atol=1e-5)
    distinct = {row[2] for row in transformer.diffcr.kept_tokens(16)}
    assert 1 < counter.frame_count <= len(distinct)


def test_a_model_that_was_just_attached_to_is_the_bare_one(
    route_by_kernels: Callable[[], None],
) -> None:
    bare, given = pixart(), inputs(4)
    with torch.no_grad():
        expected = denoise(bare, given)
        attach(bare, DiffCRConfig())
        route_by_kernels()
        assert torch.equal(denoise(bare.eval(), given), expected)


def test_kernels_are_for_inference_on_a_gpu() -> None:
    hidden_states = _randn(1, 4, 8)
    assert kernels_for(hidden_states) is None  # Gradients are on.
    with torch.no_grad():
        assert (kernels_for(hidden_states) is not None) == _ON_A_GPU
        assert kernels_for(hidden_states.double()) is None
        assert kernels_for(hidden_states.cpu()) is None


def test_where_kernels_fail_one_warning_says_why(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = _kernels_on.__wrapped__
    assert find(torch.device(_DEVICE)) is kernels

    def fail(*args: object) -> None:
        raise AssertionError("libcuda.so cannot be found")

    monkeypatch.setattr(kernels, "rank", fail)
    with pytest.warns(DiffCRWarning, match="more and slower operations: libcuda.so cannot be"):
        assert find(torch.device(_DEVICE)) is None
