"""Seconds of calls, taken in turns so that a machine's drift meets all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch

from diffcr.errors import DiffCRError


@dataclass(frozen=True)
class Timing:
    """Seconds of one callable, in the order they were taken."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the samples, seconds."""
        return median(self.samples)


@dataclass(frozen=True)
class LatencyRatio:
    """A callable's seconds against a baseline's.

    Attributes:
        baseline: Timing of what others are held against, as a rule the dense model.
        candidate: Timing of what is compared with it, taken in turns with it.
    """

    baseline: Timing
    candidate: Timing

    @property
    def ratio(self) -> float:
        """Median over the pairs of candidate by baseline; below 1 is faster."""
        pairs = zip(self.candidate.samples, self.baseline.samples, strict=True)
        return median(candidate / baseline for candidate, baseline in pairs)

    def to_json_dict(self) -> dict[str, float]:
        """Medians in seconds and the ratio."""
        return {
            "dense": self.baseline.median,
            "compressed": self.candidate.median,
            "ratio": self.ratio,
        }


def summarise(timings: Mapping[str, Timing], baseline: str = "dense") -> dict[str, Any]:
    """A part of a record's section `times`: medians in seconds, and of every other one the ratio to
    the baseline, which was timed in turns with it."""
    return {
        "median_seconds": {name: timing.median for name, timing in timings.items()},
        "ratio_to_dense": {
            name: LatencyRatio(timings[baseline], timing).ratio
            for name, timing in timings.items()
            if name != baseline
        },
    }


def time_interleaved(
    calls: Mapping[str, Callable[[], Any]],
    repeats: int = 15,
    warmup: int = 2,
    device: torch.device | None = None,
    after_each: Callable[[], object] | None = None,
) -> dict[str, Timing]:
    """Time callables in turns: A B A B ...

    Args:
        calls: By name.
        repeats: Samples of each, at least 1.
        warmup: Rounds before the first sample.
        device: Where the work is done; the clock is read when an accelerator's queue is empty.
        after_each: Called after each call, outside of what is timed.

    Raises:
        DiffCRError: A number is outside its range.
    """
    if repeats < 1 or warmup < 0:
        raise DiffCRError(f"repeats is {repeats}, warmup {warmup}: give at least 1 and 0")
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warmup + repeats):
        for name, call in calls.items():
            elapsed = _time(call, device)
            if turn >= warmup:
                seconds[name].append(elapsed)
            if after_each is not None:
                after_each()
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def compare_latency(
    baseline: Callable[[], Any],
    candidate: Callable[[], Any],
    repeats: int = 15,
    warmup: int = 2,
    device: torch.device | None = None,
) -> LatencyRatio:
    """Time two callables in turns."""
    calls = {"baseline": baseline, "candidate": candidate}
    return LatencyRatio(**time_interleaved(calls, repeats, warmup, device))


def _time(call: Callable[[], Any], device: torch.device | None) -> float:
    _wait_for(device)
    start = perf_counter()
    call()
    _wait_for(device)
    return perf_counter() - start


def _wait_for(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
