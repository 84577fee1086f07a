"""Speed of routing, measured side by side: `python benchmarks/speed.py forward|precision|step`.

forward: `diffcr bench` on PixArt-Sigma XL/2's configuration at 512 x 512, batch 1: the dense
forward against 20, 30 and 50 % compression of every layer, and training-free methods at 30 %.
precision: a training step of the embedded pipeline's transformer in float32, and in bfloat16 with
either kernel of attention.
step: a fine-tuning step of the embedded pipeline's transformer with LoRA: the dense model against
sampled branches, at c = 0 and at the table of the embedded checkpoint.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console

import diffcr
from diffcr.evaluation.bench import BenchOptions, bench, bench_tables
from diffcr.evaluation.console import show_tables
from diffcr.evaluation.contenders import parse_contender
from diffcr.evaluation.latency import time_interleaved
from diffcr.evaluation.records import make_record, write_record
from diffcr.evaluation.subject import open_subject
from diffcr.pretrained import default_checkpoint_path, load_default_pipeline
from diffcr.training.run import attention_kernel

RESULTS = Path(__file__).parent / "results"
FORWARD_METHODS = ("diffcr:0.2", "diffcr:0.3", "diffcr:0.5", "tome:0.3:block", "at-edm:0.3")


def measure_forward(pairs: int) -> None:
    subject = open_subject("pixart-sigma-xl", 512)
    contenders = [parse_contender(method) for method in FORWARD_METHODS]
    record = bench(subject, contenders, BenchOptions(pairs=pairs))
    show_tables(bench_tables(record), Console())
    print(write_record(record, RESULTS / "forward-pixart-sigma-xl-512.json"))


def measure_step(pairs: int, batch: int) -> None:
    runs = {
        "dense": training_step(_dense_with_lora(), batch),
        "c = 0": training_step(_compressed(at_zero=True), batch),
        "learned table": training_step(_compressed(at_zero=False), batch),
    }
    learned = _compressed(at_zero=False).diffcr.mean_compression_ratio
    extra = {"batch_size": batch, "learned_mean_compression_ratio": learned}
    write_speed("step-embedded-lora", timed_samples(runs, pairs), pairs, extra)


def measure_precision(pairs: int, batch: int) -> None:
    transformer = load_default_pipeline("cpu").transformer
    step = training_step(transformer, batch)

    def autocast(kernel: AbstractContextManager[None]) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16), kernel:
            step()

    runs = {
        "dense": step,
        "bfloat16, fused attention": lambda: autocast(nullcontext()),
        "bfloat16, plain attention": lambda: autocast(
            attention_kernel(torch.device("cpu"), "bf16")
        ),
    }
    write_speed("step-embedded-precision", timed_samples(runs, pairs), pairs, {"batch_size": batch})


def _dense_with_lora() -> Any:
    transformer = load_default_pipeline("cpu").transformer
    diffcr.add_lora(transformer, rank=32)
    return transformer


def _compressed(at_zero: bool) -> Any:
    """The embedded checkpoint's table, with the same LoRA as the dense model."""
    pipe = load_default_pipeline("cpu")
    compressor = diffcr.load(pipe, default_checkpoint_path())
    diffcr.add_lora(pipe, rank=32)
    if at_zero:
        compressor.set_compression_ratios(0.0)
    return pipe.transformer


def training_step(transformer: Any, batch: int) -> Callable[[], None]:
    """Forward, backward and an optimizer step that leaves the ratios where they are."""
    transformer.train()
    compressor = getattr(transformer, "diffcr", None)
    trained = [
        parameter
        for name, parameter in transformer.named_parameters()
        if parameter.requires_grad and name != "diffcr.ratios"
    ]
    optimizer = torch.optim.AdamW(trained, lr=1e-6)
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(28) < 20).long().expand(batch, -1)

    def run() -> None:
        region = int(torch.randint(4, (), generator=generator))
        output = transformer(
            torch.randn(batch, 4, 24, 24),
            encoder_hidden_states=torch.randn(batch, 28, 128),
            encoder_attention_mask=mask,
            timestep=torch.full((batch,), 125 + 250 * region),
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )[0]
        loss = output.square().mean()
        if compressor is not None:
            loss = loss + compressor.ratio_loss(3.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


def timed_samples(runs: dict[str, Callable[[], None]], pairs: int) -> dict[str, list[float]]:
    timings = time_interleaved(runs, repeats=pairs, warmup=1)
    return {name: list(timing.samples) for name, timing in timings.items()}


def write_speed(
    name: str, samples: dict[str, list[float]], pairs: int, extra: dict[str, Any]
) -> None:
    summary = summarised(samples)
    record = make_record(
        "speed",
        {"pairs": pairs, **extra},
        {**summary, **extra},
        seeds={"weights": 0},
        samples=samples,
    )
    print(summary["ratio_to_dense"], extra, write_record(record, RESULTS / f"{name}.json"))


def summarised(samples: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Medians, and the median over rounds of each one's seconds by the dense model's."""
    dense = samples["dense"]
    ratios = {
        key: median(a / b for a, b in zip(values, dense, strict=True))
        for key, values in samples.items()
        if key != "dense"
    }
    return {
        "median_seconds": {key: median(values) for key, values in samples.items()},
        "ratio_to_dense": ratios,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["forward", "precision", "step"])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=32)
    arguments = parser.parse_args()
    if arguments.what == "forward":
        measure_forward(arguments.pairs)
    elif arguments.what == "precision":
        measure_precision(arguments.pairs, arguments.batch_size)
    else:
        measure_step(arguments.pairs, arguments.batch_size)
