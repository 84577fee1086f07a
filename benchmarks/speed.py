"""Speed of routing, measured side by side: `python benchmarks/speed.py WHAT`.

forward: `diffcr bench` on PixArt-Sigma XL/2's configuration at 512 x 512, batch 1: the dense
forward against 20, 30 and 50 % compression of every layer, and training-free methods at 30 %.
inpainting: PixArt-alpha XL/2's configuration at 1024 x 1024, batch 1: a step of the text-to-image
model, which RegenerateImage takes, against one of the masked tokens' decoder at 1/16 of the area,
uncompressed and with the routed forward at 30 %.
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
from torch import Tensor

import diffcr
from diffcr.binding.model import get_compressor, is_routed
from diffcr.checkpoint.contenders import build, parse_contender
from diffcr.evaluation.timing.bench import BenchOptions, bench, bench_tables
from diffcr.evaluation.timing.latency import time_interleaved
from diffcr.evaluation.timing.speed import forward_inputs
from diffcr.evaluation.timing.subject import open_subject
from diffcr.inpainting import LazyTransformer2DModel
from diffcr.pretrained import default_checkpoint_path, load_default_pipeline
from diffcr.records.record import make_record, write_record
from diffcr.report.console import show_tables
from diffcr.training.run import attention_kernel

RESULTS = Path(__file__).parent / "results"
FORWARD_METHODS = ("diffcr:0.2", "diffcr:0.3", "diffcr:0.5", "tome:0.3:block", "at-edm:0.3")


def measure_forward(pairs: int) -> None:
    subject = open_subject("pixart-sigma-xl", 512)
    contenders = [parse_contender(method) for method in FORWARD_METHODS]
    record = bench(subject, contenders, BenchOptions(pairs=pairs))
    show_tables(bench_tables(record), Console())
    print(write_record(record, RESULTS / "forward-pixart-sigma-xl-512.json"))


def measure_inpainting(pairs: int) -> None:
    subject = open_subject("pixart-alpha-xl", 1024)
    decoder = LazyTransformer2DModel.from_text_to_image(subject.transformer, CONTEXT_CHANNELS)
    # An image of 64 x 64 tokens, a mask of a quarter of its side.
    grid = torch.arange(64 * 64).view(64, 64)
    indices = grid[24:40, 24:40].reshape(1, -1)
    models = {
        "dense": subject.transformer,
        "256 tokens": decoder,
        "256 tokens, 30 %": build(parse_contender("diffcr:0.3"), decoder),
    }
    size = (1, subject.side, subject.side, subject.text_tokens, [500])
    runs = {name: _forward(model, size, indices) for name, model in models.items()}
    samples = timed_samples(runs, pairs)
    pair = zip(samples["256 tokens, 30 %"], samples["256 tokens"], strict=True)
    compressed = median(routed / whole for routed, whole in pair)
    write_speed("inpainting-pixart-alpha-xl-1024", samples, pairs, {"30_percent_to_0": compressed})


CONTEXT_CHANNELS = 1152


def _forward(model: Any, size: tuple[Any, ...], indices: Tensor) -> Callable[[], None]:
    arguments = forward_inputs(model, *size)[500]
    if isinstance(model, LazyTransformer2DModel):
        context = torch.randn(1, indices.shape[1], CONTEXT_CHANNELS)
        arguments |= {"token_indices": indices, "context": context}

    def run() -> None:
        with torch.no_grad():
            model(**arguments)

    return run


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
        if is_routed(transformer):
            loss = loss + get_compressor(transformer).ratio_loss(3.0)
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
    parser.add_argument("what", choices=["forward", "inpainting", "precision", "step"])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=32)
    arguments = parser.parse_args()
    if arguments.what == "forward":
        measure_forward(arguments.pairs)
    elif arguments.what == "inpainting":
        measure_inpainting(arguments.pairs)
    elif arguments.what == "precision":
        measure_precision(arguments.pairs, arguments.batch_size)
    else:
        measure_step(arguments.pairs, arguments.batch_size)
