"""Seconds of calls, taken in turns so that a machine's drift meets all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from statistics import median
from time import perf_counter
from typing import Any

import torch

from diffcr.errors import DiffCRError

# Below it a median of pairs has no interval that holds it with 95 % confidence.
_FEWEST_PAIRS = 6
# Width of an interval from which on more pairs are taken, and how many times as many at most.
_NARROW, _MOST = 0.05, 4
_MISSED = 0.05


@dataclass(frozen=True)
class Timing:
    """Seconds of one callable, in the order they were taken."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the samples, seconds."""
        return median(self.samples)

    def followed_by(self, later: Timing) -> Timing:
        """These samples and later ones."""
        return Timing(self.samples + later.samples)


@dataclass(frozen=True)
class LatencyRatio:
    """A callable's seconds against a baseline's.

    Attributes:
        baseline: Timing of what others are held against, as a rule the dense model.
        candidate: Timing of what is compared with it, taken in turns with it.
        control: The baseline's once more in the same turns: how far it is from itself is the
            machine's noise. None where it was not taken.
    """

    baseline: Timing
    candidate: Timing
    control: Timing | None = None

    @property
    def ratio(self) -> float:
        """Median over the pairs of candidate by baseline; below 1 is faster."""
        return median(_ratios(self.candidate, self.baseline))

    @property
    def interval(self) -> tuple[float, float]:
        """Where the ratio lies with 95 % confidence, as `median_interval` has it."""
        return median_interval(_ratios(self.candidate, self.baseline))

    @property
    def control_interval(self) -> tuple[float, float] | None:
        """Likewise of the baseline by itself."""
        if self.control is None:
            return None
        return median_interval(_ratios(self.control, self.baseline))

    @property
    def needs_more(self) -> bool:
        """Whether the interval is wider than 0.05, and more pairs could narrow it."""
        low, high = self.interval
        return len(self.baseline.samples) >= _FEWEST_PAIRS and high - low > _NARROW

    def followed_by(self, later: LatencyRatio) -> LatencyRatio:
        """These pairs and later ones of the same calls."""
        control = None
        if self.control is not None and later.control is not None:
            control = self.control.followed_by(later.control)
        return LatencyRatio(
            self.baseline.followed_by(later.baseline),
            self.candidate.followed_by(later.candidate),
            control,
        )

    def to_json_dict(self) -> dict[str, Any]:
        """Medians in seconds, the ratio, its interval, that of the control, and pairs."""
        return {
            "dense": self.baseline.median,
            "compressed": self.candidate.median,
            "ratio": self.ratio,
            "interval": list(self.interval),
            "control_interval": self.control_interval and list(self.control_interval),
            "pairs": len(self.baseline.samples),
        }


def _ratios(candidate: Timing, baseline: Timing) -> list[float]:
    pairs = zip(candidate.samples, baseline.samples, strict=True)
    return [ours / theirs for ours, theirs in pairs]


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Between which two of the values the median of what they are drawn from lies with at least
    95 % confidence, whatever their distribution (order statistics of the sign test). Of fewer than
    6 values it is the smallest and the largest, with less confidence.

    Args:
        values: At least one.
    """
    ordered, count = sorted(values), len(values)
    left_out, tail = 0, 0.0
    while 2 * (tail := tail + comb(count, left_out) / 2**count) <= _MISSED:
        left_out += 1
    place = max(left_out - 1, 0)
    return ordered[place], ordered[count - 1 - place]


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
    """Time two callables in turns, and the first once more in each turn as a control. Where the
    ratio's interval is wider than 0.05 more turns are taken, until it is not or there are four
    times as many.

    Args:
        baseline: What the other is held against.
        candidate: The other.
        repeats: Turns, at least 1; only 6 or more can become more.
        warmup: Turns before the first sample.
        device: As `time_interleaved` has it.

    Raises:
        DiffCRError: A number is outside its range.
    """
    calls = {"baseline": baseline, "candidate": candidate, "control": baseline}
    taken = LatencyRatio(**time_interleaved(calls, repeats, warmup, device))
    while taken.needs_more and len(taken.baseline.samples) < _MOST * repeats:
        later = LatencyRatio(**time_interleaved(calls, repeats, warmup=0, device=device))
        taken = taken.followed_by(later)
    return taken


def _time(call: Callable[[], Any], device: torch.device | None) -> float:
    _wait_for(device)
    start = perf_counter()
    call()
    _wait_for(device)
    return perf_counter() - start


def _wait_for(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
