"""What routing takes beyond its operations: `benchmarks/routing_overhead.py WHAT [--pairs N]`.

In turns, in the process's CPU seconds, float32, the dense model twice as control:

embedded: the embedded pipeline's transformer at batch 1, 2 and 16, its checkpoint and MoD at 30 %,
also with a router for two and for four of its eight layers.
Beside them the dense model on 100 of the 144 tokens, where MoD computes 101: what a method would
take that costs nothing. `results/routing-overhead-embedded.json`.
xl: PixArt XL/2's width at 512 x 512 pixels, some of its layers, random weights, one sample, at 20,
30 and 50 %. `results/routing-overhead-xl-512.json`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import process_time
from typing import Any

import torch
from claim import RESULTS

from diffcr.checkpoint.contenders import (
    Contender,
    build,
    checkpoint_contender,
    parse_contender,
)
from diffcr.cost.counting import count_contender
from diffcr.evaluation.timing.latency import LatencyRatio, Timing
from diffcr.evaluation.timing.speed import forward_inputs
from diffcr.hosts.input_size import InputSize
from diffcr.hosts.published import PAPERS_TEXT_TOKENS, make_transformer, transformer_config
from diffcr.methods.diffcr.config import MoDConfig
from diffcr.pretrained import default_checkpoint_path, load_default_pipeline
from diffcr.records.record import make_record, write_record

_TIMESTEP, _WARMUP = 500, 2
_MODEL, _PIXELS, _XL_RATIOS = "pixart-sigma-xl", 512, (0.2, 0.3, 0.5)
_EMBEDDED_TEXT, _FEWER_ROWS = 28, 20
# Forwards of a sample: a clock of CPU seconds says little of 15 ms.
_FORWARDS = {1: 5, 2: 4, 16: 1}
_Call = Callable[[], Any]


def cpu_seconds(calls: dict[str, _Call], pairs: int, forwards: int) -> dict[str, Timing]:
    """Of each call, in turns."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(_WARMUP + pairs):
        for name, call in calls.items():
            started = process_time()
            for _ in range(forwards):
                call()
            if turn >= _WARMUP:
                samples[name].append((process_time() - started) / forwards)
    return {name: Timing(tuple(taken)) for name, taken in samples.items()}


def rows(timings: dict[str, Timing], shares: dict[str, float]) -> dict[str, Any]:
    """Each call's time as a share of dense's, beside that of its operations."""
    found: dict[str, Any] = {}
    for name, timing in timings.items():
        ratio = LatencyRatio(timings["dense"], timing)
        found[name] = {
            "cpu_seconds": timing.median,
            "ratio_to_dense": ratio.ratio,
            "interval": list(ratio.interval),
        }
        if name in shares:
            found[name] |= {
                "operations": shares[name],
                "beyond_operations": ratio.ratio - shares[name],
                "efficiency": shares[name] / ratio.ratio,
            }
    return found


def forward_of(model: Any, batch: int, rows: int, text_tokens: int) -> _Call:
    """A forward of random samples; rows and columns of the latents are alike."""
    inputs = forward_inputs(model, batch, rows, rows, text_tokens, [_TIMESTEP])[_TIMESTEP]
    return lambda: model(**inputs)


def operations(contender: Contender, model: Any, text_tokens: int, batch: int) -> float:
    """Total operations under a method, as a share of the dense model's."""
    count = count_contender(contender, model, InputSize(text_tokens), batch)
    return count.mean.total / count.dense.total


@torch.no_grad()
def measure_embedded(pairs: int) -> None:
    """Write the record of the embedded model."""
    dense = load_default_pipeline("cpu").transformer.eval().requires_grad_(False)
    contenders = {
        "checkpoint": checkpoint_contender(default_checkpoint_path()),
        "mod:0.3": parse_contender("mod:0.3"),
    }
    for layers in (2, 4):
        config = MoDConfig(0.3, route_every=layers)
        contenders[f"mod:0.3, a router for {layers}"] = Contender("mod:0.3", config)
    models = {name: build(contender, dense) for name, contender in contenders.items()}
    side = dense.config.sample_size
    results: dict[str, Any] = {}
    samples: dict[str, list[float]] = {}
    for batch, forwards in _FORWARDS.items():
        whole = forward_of(dense, batch, side, _EMBEDDED_TEXT)
        fewer = forward_of(dense, batch, _FEWER_ROWS, _EMBEDDED_TEXT)
        calls = {"dense": whole, "dense, again": whole, "dense, 100 tokens": fewer}
        calls |= {n: forward_of(m, batch, side, _EMBEDDED_TEXT) for n, m in models.items()}
        timings = cpu_seconds(calls, pairs, forwards)
        shares = {n: operations(c, dense, _EMBEDDED_TEXT, batch) for n, c in contenders.items()}
        results[f"batch {batch}"] = rows(timings, shares)
        samples |= {f"batch {batch}/{n}": list(t.samples) for n, t in timings.items()}
    configuration = {
        "pairs": pairs,
        "forwards_per_sample": {str(b): f for b, f in _FORWARDS.items()},
    }
    _write("embedded", configuration, results, samples)


@torch.no_grad()
def measure_xl(pairs: int, layers: int) -> None:
    """Write the record of XL/2's size."""
    torch.manual_seed(0)
    config = {**transformer_config(_MODEL, _PIXELS), "num_layers": layers}
    dense = make_transformer(config).eval().requires_grad_(False)
    contenders = {f"mod:{ratio}": parse_contender(f"mod:{ratio}") for ratio in _XL_RATIOS}
    models: dict[str, Any] = {"dense": dense, "dense, again": dense}
    models |= {name: build(contender, dense) for name, contender in contenders.items()}
    side = dense.config.sample_size
    calls = {name: forward_of(m, 1, side, PAPERS_TEXT_TOKENS) for name, m in models.items()}
    timings = cpu_seconds(calls, pairs, forwards=1)
    shares = {n: operations(c, dense, PAPERS_TEXT_TOKENS, 1) for n, c in contenders.items()}
    configuration = {"model": _MODEL, "resolution": _PIXELS, "layers": layers, "pairs": pairs}
    samples = {name: list(timing.samples) for name, timing in timings.items()}
    _write("xl-512", configuration, rows(timings, shares), samples)


def _write(
    name: str,
    configuration: dict[str, Any],
    results: dict[str, Any],
    samples: dict[str, list[float]],
) -> None:
    record = make_record("speed", configuration, results, seeds={"weights": 0}, samples=samples)
    print(results, write_record(record, RESULTS / f"routing-overhead-{name}.json"))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("embedded", "xl"))
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--layers", type=int, default=4, help="of xl")
    asked = parser.parse_args()
    if asked.what == "embedded":
        measure_embedded(asked.pairs)
    else:
        measure_xl(asked.pairs, asked.layers)


if __name__ == "__main__":
    main()
