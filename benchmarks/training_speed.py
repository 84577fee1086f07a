"""What a fine-tuning step takes against the dense model's: `python benchmarks/training_speed.py`.

The embedded pipeline's transformer, 8 samples of 144 tokens, float32, AdamW, with LoRA and of all
weights: tokens a CPU second, the dense model twice as control.
`results/training-speed-embedded.json`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from time import process_time
from typing import Any

from claim import RESULTS
from speed import training_step

import diffcr
from diffcr.binding.model import is_routed
from diffcr.evaluation.timing.latency import Timing, summarise
from diffcr.methods.diffcr.config import DiffCRConfig
from diffcr.pretrained import load_default_pipeline
from diffcr.records.record import make_record, write_record

RECORD = RESULTS / "training-speed-embedded.json"
_RATIO, _BATCH, _TOKENS = 0.3, 8, 144


def model(full: bool, ratio: float | None) -> Any:
    """The embedded transformer, ready to be trained; bare without a ratio."""
    pipe = load_default_pipeline("cpu")
    if ratio is not None:
        diffcr.attach(pipe, DiffCRConfig(target_compression_ratio=_RATIO))
        diffcr.get_compressor(pipe).set_compression_ratios(ratio)
    if not full:
        diffcr.add_lora(pipe, rank=32)
    return pipe.transformer


def in_known_region(transformer: Any) -> Callable[[], None]:
    """A step as the trainer takes it, which knows the region of the timesteps that it drew."""
    step = training_step(transformer, _BATCH)

    def run() -> None:
        routed = is_routed(transformer)
        with transformer.diffcr.in_region(0) if routed else nullcontext():
            step()

    return run


def measure(rounds: int) -> None:
    """Write the record."""
    steps = {}
    for name, full in (("LoRA", False), ("full", True)):
        models = {"dense": None, "dense, again": None, "DiffCR at 0 %": 0.0, "DiffCR at 30 %": 0.3}
        for title, ratio in models.items():
            step = in_known_region(model(full, ratio))
            step()
            steps[f"{name}, {title}"] = step
    samples: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            started = process_time()
            step()
            samples[name].append(process_time() - started)
    timings = {name: Timing(tuple(seconds)) for name, seconds in samples.items()}
    tokens = _BATCH * _TOKENS
    results = {
        "tokens_per_cpu_second": {n: tokens / timing.median for n, timing in timings.items()},
        "cpu_seconds": {
            name: summarise(
                {n: t for n, t in timings.items() if n.startswith(f"{name},")}, f"{name}, dense"
            )
            for name in ("LoRA", "full")
        },
    }
    configuration = {"rounds": rounds, "batch_size": _BATCH, "image_tokens": _TOKENS}
    record = make_record("speed", configuration, results, seeds={"weights": 0}, samples=samples)
    print(results, write_record(record, RECORD))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    measure(parser.parse_args().rounds)


if __name__ == "__main__":
    main()
