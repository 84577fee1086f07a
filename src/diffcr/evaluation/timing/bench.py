"""Latency and memory of methods on one model, all in turns in one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from diffcr.checkpoint.contenders import DENSE, ROUTERS_SEED, Contender, build
from diffcr.cost.counting import count_contender
from diffcr.cost.flops import FlopCount
from diffcr.errors import DiffCRError
from diffcr.evaluation.timing.speed import INPUTS_SEED, forward_inputs
from diffcr.evaluation.timing.subject import WEIGHTS_SEED, Subject
from diffcr.evaluation.timing.timed_batch import Share, Variant, measure_batch, visits_of
from diffcr.records.record import Record, make_record

_LARGEST_BATCH = 1024
_COMPILED, _CAPTURED = ", compiled", ", CUDA graph"


@dataclass(frozen=True)
class BenchOptions:
    """How much is measured.

    Attributes:
        batch_sizes: Samples of a forward, each at least 1; all methods are timed at each of them.
        pairs: Rounds of samples, at least 1.
        warmup: Rounds before the first sample.
        compiled: Whether every method is timed compiled, too.
        cuda_graph: Whether every method is timed replayed from a CUDA graph, too.
        largest_batch: Whether the largest power of 2 that fits a GPU's memory is timed, too.
    """

    batch_sizes: tuple[int, ...] = (1,)
    pairs: int = 15
    warmup: int = 1
    compiled: bool = False
    cuda_graph: bool = False
    largest_batch: bool = False


def bench(
    subject: Subject, contenders: Sequence[Contender], options: BenchOptions | None = None
) -> Record:
    """Time methods and the dense model in turns: A B A B ...

    All models are copies that share the subject's weights. A method that runs out of an
    accelerator's memory, or cannot be compiled or captured, is left out, and the record says why.

    Args:
        subject: The bare model.
        contenders: Methods; dense is added, one that is given twice is timed once.
        options: How much.

    Returns:
        A record of kind "bench": per batch size every variant's median, its ratio to dense, FLOPs,
        efficiency and memory; raw seconds of every forward as samples.

    Raises:
        DiffCRError: A number is outside its range, a method does not fit the model, or the dense
            model cannot run.
    """
    options = options or BenchOptions()
    if not options.batch_sizes or min(options.batch_sizes) < 1:
        raise DiffCRError(f"batch sizes are {list(options.batch_sizes)}: give 1 or more")
    if options.cuda_graph and subject.device.type != "cuda":
        raise DiffCRError(f"CUDA graphs need a CUDA GPU: the model is on {subject.device.type}")
    if options.largest_batch and subject.device.type == "cpu":
        raise DiffCRError("on a CPU no batch is the largest: give batch sizes")
    chosen = list({contender.name: contender for contender in (DENSE, *contenders)}.values())
    counts = {c.name: count_contender(c, subject.transformer, subject.size) for c in chosen}
    variants = _make_variants(subject, chosen, counts, options)
    batches: dict[str, Any] = {}
    left_out: dict[str, Any] = {}
    samples: dict[str, list[float]] = {}
    largest = [_largest_batch(subject)] if options.largest_batch else []
    for batch_size in dict.fromkeys((*options.batch_sizes, *largest)):
        result = measure_batch(subject, variants, batch_size, options.pairs, options.warmup)
        batches[str(batch_size)] = {n: m.to_json_dict() for n, m in result.measured.items()}
        if result.left_out:
            left_out[str(batch_size)] = result.left_out
        samples |= {f"batch {batch_size}/{n}": list(s) for n, s in result.seconds.items()}
    configuration = {
        **_describe(subject, counts[DENSE.name]),
        **asdict(options),
        "batch_sizes": list(options.batch_sizes),
        "methods": {c.name: c.config.to_json_dict() for c in chosen},
    }
    seeds = {"weights": WEIGHTS_SEED, "routers": ROUTERS_SEED, "inputs": INPUTS_SEED}
    results = {"batches": batches, "left_out": left_out}
    return make_record("bench", configuration, results, seeds=seeds, samples=samples)


@torch.no_grad()
def _largest_batch(subject: Subject) -> int:
    """The largest power of 2 whose dense forward fits the memory."""
    fits = 1
    while fits < _LARGEST_BATCH:
        try:
            size = (2 * fits, subject.side, subject.side, subject.text_tokens)
            inputs = forward_inputs(subject.transformer, *size, [500], subject.frames)
            subject.transformer(**inputs[500])
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        fits *= 2
    return fits


def _describe(subject: Subject, dense: FlopCount) -> dict[str, Any]:
    return {
        "model": subject.name,
        "random_weights": subject.random_weights,
        "image_tokens": dense.image_tokens,
        "text_tokens": subject.text_tokens,
        "dtype": str(next(subject.transformer.parameters()).dtype).removeprefix("torch."),
        "device": subject.device.type,
    }


def _make_variants(
    subject: Subject,
    contenders: Sequence[Contender],
    counts: Mapping[str, FlopCount],
    options: BenchOptions,
) -> list[Variant]:
    variants = []
    ways = ("", *([_COMPILED] * options.compiled), *([_CAPTURED] * options.cuda_graph))
    for suffix in ways:
        for contender in contenders:
            model = build(contender, subject.transformer, compiled=suffix == _COMPILED)
            count = counts[contender.name]
            mean, dense = count.mean, counts[DENSE.name].dense
            share = Share(mean.linear / dense.linear, mean.total / dense.total)
            names = (contender.name + suffix, DENSE.name + suffix)
            visits = visits_of(count.per_layer)
            variants.append(Variant(*names, model, visits, share, suffix == _CAPTURED))
    return variants
