"""Latency and memory of methods on one model, all in turns in one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from diffcr.checkpoint.contenders import DENSE, ROUTERS_SEED, Contender, build
from diffcr.cost.counting import count_contender
from diffcr.cost.flops import FlopCount
from diffcr.errors import DiffCRError
from diffcr.evaluation.timing.speed import INPUTS_SEED
from diffcr.evaluation.timing.subject import WEIGHTS_SEED, Subject
from diffcr.evaluation.timing.timed_batch import Share, Variant, measure_batch, visits_of
from diffcr.records.record import Record, make_record
from diffcr.report.tables import Table

_MIB = 2**20
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
    """

    batch_sizes: tuple[int, ...] = (1,)
    pairs: int = 15
    warmup: int = 1
    compiled: bool = False
    cuda_graph: bool = False


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
    chosen = list({contender.name: contender for contender in (DENSE, *contenders)}.values())
    counts = {c.name: count_contender(c, subject.transformer, subject.size) for c in chosen}
    variants = _make_variants(subject, chosen, counts, options)
    batches: dict[str, Any] = {}
    left_out: dict[str, Any] = {}
    samples: dict[str, list[float]] = {}
    for batch_size in dict.fromkeys(options.batch_sizes):
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
            mean, dense = count.mean, count.dense
            share = Share(mean.linear / dense.linear, mean.total / dense.total)
            names = (contender.name + suffix, DENSE.name + suffix)
            visits = visits_of(count.per_layer)
            variants.append(Variant(*names, model, visits, share, suffix == _CAPTURED))
    return variants


def bench_tables(record: Record) -> list[Table]:
    """Per batch size what was measured, then what the operations predict."""
    tables = []
    for batch_size, measured in record.results["batches"].items():
        configuration = record.configuration
        where = (
            f"{configuration['model']}, {configuration['image_tokens']} image tokens, "
            f"{configuration['dtype']}, batch {batch_size}"
        )
        left_out = record.results["left_out"].get(batch_size, {})
        tables += [_time_table(where, measured, left_out), _efficiency_table(measured)]
    return tables


def _time_table(where: str, measured: Mapping[str, Any], left_out: Mapping[str, str]) -> Table:
    rows = [
        (
            name,
            f"{1000 * values['median_seconds']:.2f}",
            f"{values['ratio_to_dense']:.3f}",
            _mebibytes(values, "peak"),
            _mebibytes(values, "rise"),
        )
        for name, values in measured.items()
    ]
    note = (
        "Medians of forwards taken in turns; of dense: median over the rounds of a method's time "
        "by that of dense, compiled or replayed alike. rise: the peak without what was held "
        "before the forward."
    )
    note += "".join(f" {name} was left out: {reason}." for name, reason in left_out.items())
    columns = ("method", "median, ms", "of dense", "peak, MiB", "rise, MiB")
    return Table(f"Denoiser: {where}", columns, tuple(rows), note)


def _mebibytes(values: Mapping[str, Any], name: str) -> str:
    memory = values.get("peak_memory")
    return "-" if memory is None else f"{memory[name] / _MIB:.1f}"


def _efficiency_table(measured: Mapping[str, Any]) -> Table:
    rows = [
        (
            name,
            *(f"{100 * values['flops_ratio'][count]:.1f} %" for count in ("linear", "total")),
            *(f"{values['efficiency'][count]:.3f}" for count in ("linear", "total")),
        )
        for name, values in measured.items()
    ]
    note = (
        "linear: the products of linear layers, the paper's count; total: with those inside "
        "attention. Efficiency: the measured speed-up by the one that these FLOPs predict."
    )
    columns = ("method", "linear", "total", "efficiency, linear", "total")
    return Table("FLOPs of dense, and efficiency", columns, tuple(rows), note)
