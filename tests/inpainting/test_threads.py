"""Threads that share an inpainting pipeline, its models or its cache get what one alone gets."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import diffcr
from diffcr.inpainting import LazyInpaintPipeline, RegenerateCrop, RegenerateImage
from diffcr.inpainting.cache import TensorCache
from diffcr.methods.diffcr.config import DiffCRConfig
from tests.hosts import scramble
from tests.inpainting.hosts import box_mask, photograph, tiny_lazy_pipeline
from tests.pipelines import tiny_pixart_pipeline

_THREADS = 4
_ROUNDS = 4
bare_and_attached = pytest.mark.parametrize("attached", [False, True], ids=["bare", "attached"])
_PROMPTS = ("a red circle", "a blue star " * 9, "a green square in front of a wall", "a ring " * 4)


@pytest.fixture(autouse=True)
def _impatient_threads() -> Iterator[None]:
    """Threads change places a thousand times as often, so that races are found."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(usual)


def _paint(pipe: Any, job: int) -> NDArray[Any]:
    """Every job has its own prompt, steps, mask, length of text and noise; two share a picture."""
    found = pipe(
        _PROMPTS[job],
        photograph(seed=job // 2),
        box_mask(part=(0.2, 0.5, 0.9, 0.5)[job]),
        num_inference_steps=(3, 5, 2, 4)[job],
        guidance_scale=(4.5, 1.0, 3.0, 4.5)[job],
        max_sequence_length=(8, 16, 12, 16)[job],
        output_type="np",
        generator=torch.Generator().manual_seed(job),
    )
    images: NDArray[Any] = found if isinstance(found, np.ndarray) else found[0]
    return images


def _assert_equal_to_alone(pipes: list[Any], forget: Callable[[], None] = lambda: None) -> None:
    alone = [_paint(pipes[job], job) for job in range(_THREADS)]
    with ThreadPoolExecutor(_THREADS) as threads:
        for _ in range(_ROUNDS):
            forget()
            together = list(threads.map(_paint, pipes, range(_THREADS)))
            assert [np.array_equal(*pair) for pair in zip(alone, together, strict=True)] == [
                True
            ] * _THREADS


def _pipeline(attached: bool) -> LazyInpaintPipeline:
    pipe = tiny_lazy_pipeline()
    if attached:
        scramble(diffcr.attach(pipe, DiffCRConfig(timestep_regions=10)))
        scramble(diffcr.attach(pipe.encoder, DiffCRConfig(timestep_regions=1)))
    return pipe


@bare_and_attached
def test_one_pipeline_for_all_threads(attached: bool) -> None:
    pipe = _pipeline(attached)
    _assert_equal_to_alone([pipe] * _THREADS, pipe.cache.clear)
    _assert_equal_to_alone([pipe] * _THREADS)


@pytest.mark.parametrize("baseline", [RegenerateImage, RegenerateCrop])
def test_one_baseline_for_all_threads(baseline: type[RegenerateImage]) -> None:
    base = tiny_pixart_pipeline()
    base.set_progress_bar_config(disable=True)
    _assert_equal_to_alone([baseline(base)] * _THREADS)


@bare_and_attached
@pytest.mark.parametrize("shares_cache", [False, True])
def test_a_pipeline_per_thread_around_the_same_models(shares_cache: bool, attached: bool) -> None:
    base = _pipeline(attached)
    parts = {name: part for name, part in base.components.items() if name != "scheduler"}
    pipes = [
        LazyInpaintPipeline(**parts, scheduler=deepcopy(base.scheduler)) for _ in range(_THREADS)
    ]
    for pipe in pipes:
        pipe.set_progress_bar_config(disable=True)
        pipe.cache = base.cache if shares_cache else pipe.cache
    _assert_equal_to_alone(pipes, lambda: [pipe.cache.clear() for pipe in pipes].clear())


def test_a_call_leaves_the_pipelines_scheduler_as_it_was() -> None:
    pipe = tiny_lazy_pipeline()
    before = deepcopy(vars(pipe.scheduler))
    _paint(pipe, 0)
    assert {k: str(v) for k, v in vars(pipe.scheduler).items()} == {
        k: str(v) for k, v in before.items()
    }


def test_a_small_cache_gives_every_thread_its_own_result() -> None:
    cache = TensorCache(size=2)

    def look_up(number: int) -> bool:
        found = cache.get(str(number % 5), lambda: torch.tensor(number % 5))
        if number % 50 == 0:
            cache.clear()
        return int(found) == number % 5

    with ThreadPoolExecutor(_THREADS) as threads:
        assert all(threads.map(look_up, range(2000)))


@pytest.mark.parametrize("size", [0, 1, 2])
def test_what_was_used_longest_ago_is_forgotten_first(size: int) -> None:
    cache, computed = TensorCache(size), []

    def compute(key: str) -> torch.Tensor:
        computed.append(key)
        return torch.zeros(1)

    for key in "abacab":
        cache.get(key, lambda key=key: compute(key))  # type: ignore[misc]
    assert "".join(computed) == {0: "abacab", 1: "abacab", 2: "abcb"}[size]
