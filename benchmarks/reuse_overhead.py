"""What token reuse adds to a routed forward: `python benchmarks/reuse_overhead.py [--pairs N]`.

PixArt XL/2's width at 512 x 512 pixels, some of its layers, random weights, float32, one sample, in
turns and in the process's CPU seconds: later steps of runs that reuse 30 % of the tokens, as a
method of its own and as DiffCR's bypass, and a forward that is routed with as many kept tokens in
every layer. In the method of its own kept tokens attend to all tokens, which is no bookkeeping:
attention with either number of keys is timed beside. `results/reuse-overhead-xl-512.json`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from copy import deepcopy
from time import process_time
from typing import Any

import torch
from claim import RESULTS

from diffcr.binding.attachment import attach
from diffcr.binding.model import get_compressor
from diffcr.checkpoint.contenders import build, parse_contender
from diffcr.evaluation.timing.latency import Timing, summarise
from diffcr.evaluation.timing.speed import forward_inputs
from diffcr.hosts.published import PAPERS_TEXT_TOKENS, make_transformer, transformer_config
from diffcr.methods.reuse.config import ReuseConfig
from diffcr.records.record import make_record, write_record

_MODEL, _PIXELS = "pixart-sigma-xl", 512
_RATIO = 0.3
_FIRST_LEVEL, _LEVELS = 999, range(800, 0, -5)
_Call = Callable[[], Any]


def reusing_steps(transformer: Any, inputs: dict[str, Any]) -> Iterator[_Call]:
    """The steps of one sampling run after its first, which is dense."""
    latents = inputs["hidden_states"]
    generator = torch.Generator().manual_seed(0)
    transformer(**{**inputs, "timestep": torch.tensor([_FIRST_LEVEL])})
    for level in _LEVELS:
        moved = latents + 0.01 * torch.randn(latents.shape, generator=generator)
        given = {**inputs, "hidden_states": moved, "timestep": torch.tensor([level])}
        yield lambda given=given: transformer(**given)


def attention(config: Any, queries: int, keys: int) -> _Call:
    """One attention of a sample's tokens."""
    heads, width = config.num_attention_heads, config.attention_head_dim
    query, key, value = (torch.randn(1, heads, count, width) for count in (queries, keys, keys))
    return lambda: torch.nn.functional.scaled_dot_product_attention(query, key, value)


def cpu_seconds(call: _Call) -> float:
    started = process_time()
    call()
    return process_time() - started


@torch.no_grad()
def measure(pairs: int, layers: int) -> None:
    """Write the record."""
    torch.manual_seed(0)
    config = {**transformer_config(_MODEL, _PIXELS), "num_layers": layers}
    dense = make_transformer(config).eval()
    side, tokens = dense.config.sample_size, (dense.config.sample_size // 2) ** 2
    inputs = forward_inputs(dense, 1, side, side, PAPERS_TEXT_TOKENS, [500])[500]
    routed, reusing = build(parse_contender(f"mod:{_RATIO}"), dense), deepcopy(dense)
    attach(reusing, ReuseConfig(_RATIO, "tokens"))
    bypassing = build(parse_contender(f"mod:{_RATIO}"), dense)
    compressor = get_compressor(bypassing)
    compressor.set_bypass("reuse")
    kept = tokens - int(tokens * _RATIO)
    calls: dict[str, _Call] = {
        "dense": lambda: dense(**inputs),
        "routed": lambda: routed(**inputs),
        "attention, kept keys": attention(dense.config, kept, kept),
        "attention, all keys": attention(dense.config, kept, tokens),
    }
    runs = {"reuse": reusing_steps(reusing, inputs), "bypass": reusing_steps(bypassing, inputs)}
    samples: dict[str, list[float]] = {name: [] for name in (*calls, *runs)}
    for turn in range(pairs + 1):
        for name, call in {**calls, **{name: next(steps) for name, steps in runs.items()}}.items():
            seconds = cpu_seconds(call)
            # The first turn warms up.
            if turn:
                samples[name].append(seconds)
    timings = {name: Timing(tuple(taken)) for name, taken in samples.items()}
    forwards = {name: timings[name] for name in ("routed", *runs, "dense")}
    added = timings["attention, all keys"].median - timings["attention, kept keys"].median
    share = layers * added / timings["routed"].median
    results = {
        "cpu_seconds": {name: timing.median for name, timing in timings.items()},
        "ratio_to_routed": summarise(forwards, "routed")["ratio_to_dense"],
        "share_of_wider_attention": share,
        "bytes_that_the_bypass_holds": sum(run.memory for run in compressor.current.known()),
    }
    configuration = {
        "model": _MODEL,
        "resolution": _PIXELS,
        "layers": layers,
        "compression_ratio": _RATIO,
        "tokens": {"all": tokens, "kept": kept},
        "pairs": pairs,
    }
    record = make_record("speed", configuration, results, seeds={"weights": 0}, samples=samples)
    print(results, write_record(record, RESULTS / "reuse-overhead-xl-512.json"))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=25)
    parser.add_argument("--layers", type=int, default=4)
    arguments = parser.parse_args()
    measure(arguments.pairs, arguments.layers)


if __name__ == "__main__":
    main()
