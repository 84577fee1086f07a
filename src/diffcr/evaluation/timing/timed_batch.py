"""Variants of one model at one batch size: tried out, timed in turns, then watched for memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from diffcr.binding.cuda_graphs import CaptureError
from diffcr.core.regions import TIMESTEPS
from diffcr.cost.flops import Flops
from diffcr.errors import DiffCRError, first_line
from diffcr.evaluation.timing.captured_call import CapturedCall
from diffcr.evaluation.timing.latency import LatencyRatio, Timing, time_interleaved
from diffcr.evaluation.timing.memory import PeakMemory, peak_memory
from diffcr.evaluation.timing.speed import forward_inputs
from diffcr.evaluation.timing.subject import Subject

Call = Callable[[], Tensor]
_TRIALS = 1
_MEMORY_RUNS = 1


@dataclass(frozen=True)
class Visit:
    """A timestep that stands for all regions in which a method computes the same.

    Attributes:
        timestep: In the middle of one of them, 0 to 999.
        weight: Their share of all regions, in (0, 1].
    """

    timestep: int
    weight: float


def visits_of(per_layer: Sequence[Sequence[Flops]]) -> tuple[Visit, ...]:
    """Where to time a method whose layers take `per_layer`, [L][R]; weights sum to 1."""
    alike: dict[tuple[Flops, ...], list[int]] = {}
    for region, column in enumerate(zip(*per_layer, strict=True)):
        alike.setdefault(column, []).append(region)
    count = len(per_layer[0])
    return tuple(
        Visit(int((same[len(same) // 2] + 0.5) * TIMESTEPS / count), len(same) / count)
        for same in alike.values()
    )


@dataclass(frozen=True)
class Share:
    """A share per count of operations, see `diffcr.cost.flops`."""

    linear: float
    total: float


@dataclass(frozen=True)
class Variant:
    """A method on a model, eager, compiled or captured.

    Attributes:
        name: Of the method, with what was done to it.
        baseline: Name of the dense variant that was made in the same way.
        model: The transformer, bare or attached, in eval mode.
        visits: Timesteps that are timed.
        flops: Operations as a share of the dense model's.
        captured: Whether its forwards are replayed from CUDA graphs, whose memory is not watched.
    """

    name: str
    baseline: str
    model: nn.Module
    visits: tuple[Visit, ...]
    flops: Share
    captured: bool = False

    def call(self, arguments: Mapping[str, Any]) -> Call:
        """A forward with these arguments."""
        forward = partial(_forward, self.model, arguments)
        return CapturedCall(forward) if self.captured else forward


@dataclass(frozen=True)
class Measured:
    """A variant beside its baseline.

    Attributes:
        variant: What was timed.
        latency: Seconds of a forward, mean over the method's timestep regions.
        memory: Of a forward; None where it cannot be measured.
    """

    variant: Variant
    latency: LatencyRatio
    memory: PeakMemory | None

    @property
    def efficiency(self) -> Share:
        """Measured speed-up by the one that the operations predict; 1 is all of it."""
        flops, ratio = self.variant.flops, self.latency.ratio
        return Share(flops.linear / ratio, flops.total / ratio)

    def to_json_dict(self) -> dict[str, Any]:
        """Values by name: seconds, shares, bytes; no memory where it was not measured."""
        values: dict[str, Any] = {
            "median_seconds": self.latency.candidate.median,
            "baseline": self.variant.baseline,
            "ratio_to_dense": self.latency.ratio,
            "flops_ratio": asdict(self.variant.flops),
            "efficiency": asdict(self.efficiency),
            "timestep_weights": {str(v.timestep): v.weight for v in self.variant.visits},
        }
        if self.memory is not None:
            values["peak_memory"] = self.memory.to_json_dict()
        return values


@dataclass(frozen=True)
class BatchResult:
    """All variants at one batch size.

    Attributes:
        measured: By the variant's name.
        seconds: Of every forward, by the variant's name and the timestep.
        left_out: Why, by the name of what could not run.
    """

    measured: Mapping[str, Measured]
    seconds: Mapping[str, tuple[float, ...]]
    left_out: Mapping[str, str]


def measure_batch(
    subject: Subject, variants: Sequence[Variant], batch_size: int, pairs: int, warmup: int
) -> BatchResult:
    """Time variants in turns, with a progress bar on stderr.

    Args:
        subject: The bare model.
        variants: Of it; every baseline is among them.
        batch_size: Samples of a forward.
        pairs: Rounds of samples, at least 1.
        warmup: Rounds before the first sample, after one that compiles.

    Raises:
        DiffCRError: A number is outside its range, or a baseline cannot run.
    """
    return _Batch(subject, variants, batch_size).measure(pairs, warmup)


class _Batch:
    def __init__(self, subject: Subject, variants: Sequence[Variant], batch_size: int) -> None:
        self.device, self.batch_size = subject.device, batch_size
        timesteps = sorted({visit.timestep for v in variants for visit in v.visits})
        size = (batch_size, subject.side, subject.side, subject.text_tokens)
        inputs = forward_inputs(subject.transformer, *size, timesteps, subject.frames)
        self.variants = {variant.name: variant for variant in variants}
        self.calls: dict[str, dict[str, Call]] = {
            variant.name: {
                f"{variant.name}/t {visit.timestep}": variant.call(inputs[visit.timestep])
                for visit in variant.visits
            }
            for variant in variants
        }

    def measure(self, pairs: int, warmup: int) -> BatchResult:
        rounds = _TRIALS + warmup + pairs + _MEMORY_RUNS
        total = rounds * sum(map(len, self.calls.values()))
        with tqdm(total=total, desc=f"batch {self.batch_size}", unit=" forwards") as bar:
            left_out = self._try_out(bar)
            bar.total = bar.n + (rounds - _TRIALS) * sum(map(len, self.calls.values()))
            flat = {key: call for calls in self.calls.values() for key, call in calls.items()}
            timings = time_interleaved(flat, pairs, warmup, self.device, bar.update)
            memory = {name: self._watch_memory(name, bar) for name in self.calls}
        seconds = {name: self._mean_over_visits(name, timings) for name in self.calls}
        measured = {}
        for name in self.calls:
            variant = self.variants[name]
            latency = LatencyRatio(seconds[variant.baseline], seconds[name])
            measured[name] = Measured(variant, latency, memory[name])
        return BatchResult(measured, {k: t.samples for k, t in timings.items()}, left_out)

    def _try_out(self, bar: Any) -> dict[str, str]:
        """Run everything once, which compiles; take out what cannot run."""
        left_out = {}
        for name, calls in list(self.calls.items()):
            reason = _why_it_fails(calls.values(), bar.update)
            if reason and name == self.variants[name].baseline:
                raise DiffCRError(f"{name} cannot run at batch size {self.batch_size}: {reason}")
            if reason:
                left_out[name] = reason
                del self.calls[name]
        return left_out

    def _watch_memory(self, name: str, bar: Any) -> PeakMemory | None:
        calls = self.calls[name].values()
        bar.update(len(calls))
        if self.variants[name].captured:
            return None
        found = [peak_memory(call, self.device) for call in calls]
        known = [peak for peak in found if peak is not None]
        return max(known, key=lambda memory: memory.peak) if len(known) == len(found) else None

    def _mean_over_visits(self, name: str, timings: Mapping[str, Timing]) -> Timing:
        parts = [timings[key].samples for key in self.calls[name]]
        weights = [visit.weight for visit in self.variants[name].visits]
        return Timing(
            tuple(
                sum(w * s for w, s in zip(weights, turn, strict=True))
                for turn in zip(*parts, strict=True)
            )
        )


@torch.no_grad()
def _forward(model: nn.Module, arguments: Mapping[str, Any]) -> Tensor:
    output: Tensor = model(**arguments)[0]
    return output


def _why_it_fails(calls: Iterable[Call], after_each: Callable[[], object]) -> str | None:
    try:
        for call in calls:
            call()
            after_each()
    except torch.OutOfMemoryError:
        return "out of memory"
    except TorchDynamoException as error:
        return f"cannot be compiled: {first_line(error)}"
    except CaptureError as error:
        return f"cannot be captured in a CUDA graph: {error}"
    return None
