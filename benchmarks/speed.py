"""Speed of routing, measured side by side: `python benchmarks/speed.py forward|step`.

forward: PixArt-Sigma XL/2's configuration with random weights at 512 x 512, batch 1: the dense
forward against 20 and 50 % compression of every layer.
step: a fine-tuning step of the embedded pipeline's transformer with LoRA: the dense model against
sampled branches, at c = 0 and at a table around 30 %.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from diffusers import PixArtTransformer2DModel

import diffcr
from diffcr.evaluation.latency import time_interleaved
from diffcr.evaluation.records import make_record, write_record
from diffcr.lora import add_lora
from diffcr.pretraining.transformer import make_transformer

RESULTS = Path(__file__).parent / "results"


def pixart_sigma_xl() -> PixArtTransformer2DModel:
    """PixArt-Sigma XL/2 for 512 x 512, random weights."""
    torch.manual_seed(0)
    return PixArtTransformer2DModel(
        num_attention_heads=16,
        attention_head_dim=72,
        in_channels=4,
        out_channels=8,
        num_layers=28,
        cross_attention_dim=1152,
        sample_size=64,
        patch_size=2,
        caption_channels=4096,
        norm_type="ada_norm_single",
        use_additional_conditions=False,
    )


def measure_forward(pairs: int) -> None:
    transformer = pixart_sigma_xl().eval()
    started = perf_counter()
    compressor = diffcr.attach(transformer, diffcr.DiffCRConfig(timestep_regions=1))
    attach_seconds = perf_counter() - started
    with torch.no_grad():
        for router in compressor.routers.values():
            router.normal_()
    inputs: dict[str, Any] = {
        "hidden_states": torch.randn(1, 4, 64, 64),
        "encoder_hidden_states": torch.randn(1, 120, 4096),
        "timestep": torch.tensor([500]),
        "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
    }

    def dense() -> None:
        with torch.no_grad(), diffcr.disabled(transformer):
            transformer(**inputs)

    def compressed(ratio: float) -> Callable[[], None]:
        def run() -> None:
            compressor.set_compression_ratios(ratio)
            with torch.no_grad():
                transformer(**inputs)

        return run

    runs = {"dense": dense} | {f"{r:.0%}": compressed(r) for r in (0.2, 0.5)}
    samples = _samples(runs, pairs)
    added = sum(p.numel() for p in compressor.parameters())
    total = sum(p.numel() for p in transformer.parameters()) - added
    extra = {"attach_seconds": attach_seconds, "added_parameters": added / total}
    _write("forward-pixart-sigma-xl-512", samples, pairs, extra)


def measure_step(pairs: int, batch: int) -> None:
    models = {"dense": None, "c = 0": 0.0, "30 % table": 0.3}
    runs = {name: _training_step(ratio, batch) for name, ratio in models.items()}
    _write("step-embedded-lora", _samples(runs, pairs), pairs, {"batch_size": batch})


def _training_step(ratio: float | None, batch: int) -> Callable[[], None]:
    transformer = make_transformer(0).train()
    if ratio is not None:
        compressor = diffcr.attach(transformer, diffcr.DiffCRConfig())
        torch.manual_seed(1)
        with torch.no_grad():
            spread = torch.rand_like(compressor.ratios) - 0.5
            compressor.ratios.copy_(ratio + 0.4 * (spread - spread.mean()) * (ratio > 0))
            for router in compressor.routers.values():
                router.normal_(std=0.1)
        compressor.project_ratios()
    add_lora(transformer, 32)
    optimizer = torch.optim.AdamW([p for p in transformer.parameters() if p.requires_grad])
    generator = torch.Generator().manual_seed(0)

    def run() -> None:
        region = int(torch.randint(4, (), generator=generator))
        output = transformer(
            torch.randn(batch, 4, 24, 24),
            encoder_hidden_states=torch.randn(batch, 32, 128),
            timestep=torch.full((batch,), 125 + 250 * region),
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )[0]
        loss = output.square().mean()
        if ratio is not None:
            loss = loss + diffcr.get_compressor(transformer).ratio_loss(3.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


def _samples(runs: dict[str, Callable[[], None]], pairs: int) -> dict[str, list[float]]:
    timings = time_interleaved(runs, repeats=pairs, warmup=1)
    return {name: list(timing.samples) for name, timing in timings.items()}


def _write(name: str, samples: dict[str, list[float]], pairs: int, extra: dict[str, Any]) -> None:
    dense = samples["dense"]
    ratios = {
        key: median(a / b for a, b in zip(values, dense, strict=True))
        for key, values in samples.items()
        if key != "dense"
    }
    medians = {key: median(values) for key, values in samples.items()}
    record = make_record(
        "speed",
        {"pairs": pairs, **extra},
        {"median_seconds": medians, "ratio_to_dense": ratios, **extra},
        seeds={"weights": 0},
        samples=samples,
    )
    print(ratios, extra, write_record(record, RESULTS / f"{name}.json"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["forward", "step"])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=32)
    arguments = parser.parse_args()
    if arguments.what == "forward":
        measure_forward(arguments.pairs)
    else:
        measure_step(arguments.pairs, arguments.batch_size)
