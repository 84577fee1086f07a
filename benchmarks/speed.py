"""What takes how long, in turns: `python benchmarks/speed.py WHAT [--rounds N]`.

methods: the rows of the comparison: the denoiser (16 samples, mean over the timestep regions), the
pipeline (8 images, guidance, the row's own number of steps), and, of the rows at 30 %, a training
step of all weights (32 samples, bfloat16, nothing compiled, AdamW).
frontier: the pipeline of the rows that the figure of quality against time shows (8 images).
precision: a training step of the embedded pipeline's transformer in float32, and in bfloat16 with
either kernel of attention.
step: a fine-tuning step of the embedded pipeline's transformer with LoRA: the dense model against
sampled branches, at c = 0 and at the table of the embedded checkpoint.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from claim import FRONTIER, METHODS, RATIOS, RESULTS
from rows import OPTIONS, UNTRAINED, Run

import diffcr
from diffcr.binding.attachment import attach
from diffcr.binding.model import get_compressor, is_routed
from diffcr.checkpoint.contenders import ROUTERS_SEED, draw_routers
from diffcr.evaluation.generate import generate_images
from diffcr.evaluation.timing.latency import Timing, summarise, time_interleaved
from diffcr.evaluation.timing.speed import sweep_regions
from diffcr.methods.config import DenseConfig
from diffcr.methods.diffcr.compressor import Compressor
from diffcr.methods.diffcr.config import DiffCRConfig
from diffcr.pretrained import default_checkpoint_path, load_default_pipeline
from diffcr.records.record import make_record, read_record, write_record
from diffcr.scenes import ScenesDataset
from diffcr.training.run import attention_kernel

_BATCH = 32
_REGIONS = 4
_IMAGES = 8
_Call = Callable[[], Any]
_Calls = dict[str, _Call]


def measure_methods(rounds: int) -> None:
    trained = _open_trained(METHODS)
    others = [n for n in RATIOS if n not in METHODS and Run(n).is_trained]
    pipes = trained | _open_trained(others) | _open_untrained()
    steps = {name: Run(name).configuration["num_inference_steps"] for name in pipes}
    scenes = ScenesDataset("test", size=_IMAGES)
    prompts = [scene.caption for scene in scenes]
    parts: dict[str, _Calls] = {
        "denoiser": {
            name: sweep_regions(pipe, 16, _REGIONS)
            for name, pipe in pipes.items()
            if steps[name] == OPTIONS.num_inference_steps
        },
        "pipeline": {name: _generation(p, prompts, steps[name]) for name, p in pipes.items()},
        "training step": {
            name: _in_bfloat16(training_step(pipe.transformer), _plain_attention)
            for name, pipe in trained.items()
        },
    }
    times = {}
    for part, calls in parts.items():
        for pipe in pipes.values():
            pipe.transformer.train(part == "training step")
        times[part] = timed(calls, rounds // 3 if part == "pipeline" else rounds)
    seeds = {"training": 0, "routers": ROUTERS_SEED}
    write_times("methods-embedded", times, {"rounds": rounds}, seeds)


def measure_frontier(rounds: int) -> None:
    pipes = _open_trained(n for n in FRONTIER if Run(n).is_trained)
    others = [run for run in map(Run, FRONTIER) if not run.is_trained]
    pipes |= {run.name: _open_distilled(run) if run.is_distilled else run.open() for run in others}
    scenes = ScenesDataset("test", size=_IMAGES)
    prompts = [scene.caption for scene in scenes]
    calls = {
        "dense" if name == "dense-20-steps" else name: _generation(
            pipe, prompts, Run(name).configuration["num_inference_steps"]
        )
        for name, pipe in pipes.items()
    }
    # The machine's own spread: the dense pipeline a second time.
    calls["dense, again"] = calls["dense"]
    times = {"pipeline": timed(calls, rounds)}
    write_times("frontier-embedded", times, {"rounds": rounds, "images": _IMAGES}, {"routers": 0})


def _open_trained(names: Iterable[str]) -> dict[str, Any]:
    """What takes the time of a row's seed 0: its method with the ratios that its record says it
    learned, untrained else. Learned rows without a record are left out."""
    pipes = {}
    for run in map(Run, names):
        method = run.recipe.method
        learned = isinstance(method, DiffCRConfig)
        if learned and not run.record.exists():
            continue
        pipe = pipes[run.name] = load_default_pipeline()
        if isinstance(method, DenseConfig):
            continue
        attached = attach(pipe, method)
        if isinstance(attached, Compressor):
            draw_routers(attached)
        if learned:
            table = read_record(run.record).results["compression"]["realised"]
            get_compressor(pipe).set_compression_ratios(torch.tensor(table))
    return pipes


def _open_distilled(run: Run) -> Any:
    """What takes the time of a distilled row: its budget, and a LoRA as large, fused."""
    pipe = load_default_pipeline()
    run.calibrate(pipe)
    run.set_budget(pipe)
    diffcr.add_lora(pipe, run.configuration["distillation"]["lora_rank"])
    diffcr.fuse_lora(pipe)
    return pipe


def _open_untrained() -> dict[str, Any]:
    """Those whose checkpoint, where they are one, is here, but for calibrated ones."""
    runs = [Run(path.stem) for path in sorted(UNTRAINED.glob("*.json"))]
    timed = [run for run in runs if "calibration" not in run.configuration]
    here = [run for run in timed if run.result is None or run.result.exists()]
    return {run.name: run.open() for run in here}


def _generation(pipe: Any, prompts: list[str], steps: int) -> _Call:
    return partial(
        generate_images,
        pipe,
        prompts,
        num_inference_steps=steps,
        guidance_scale=OPTIONS.guidance_scale,
        batch_size=len(prompts),
    )


def measure_step(rounds: int) -> None:
    learned, zero = (_with_lora(compressed=True) for _ in range(2))
    zero.diffcr.set_compression_ratios(0.0)
    models = {"dense": _with_lora(compressed=False), "c = 0": zero, "learned table": learned}
    calls = {name: training_step(model) for name, model in models.items()}
    ratio = learned.diffcr.mean_compression_ratio
    write_step("step-embedded-lora", calls, rounds, learned_mean_compression_ratio=ratio)


def _with_lora(compressed: bool) -> Any:
    pipe = load_default_pipeline("cpu")
    if compressed:
        diffcr.load(pipe, default_checkpoint_path())
    diffcr.add_lora(pipe, rank=32)
    return pipe.transformer


def measure_precision(rounds: int) -> None:
    step = training_step(load_default_pipeline("cpu").transformer)
    calls = {
        "dense": step,
        "bfloat16, fused attention": _in_bfloat16(step, nullcontext),
        "bfloat16, plain attention": _in_bfloat16(step, _plain_attention),
    }
    write_step("step-embedded-precision", calls, rounds)


def _plain_attention() -> AbstractContextManager[None]:
    return attention_kernel(torch.device("cpu"), "bf16")


def _in_bfloat16(step: _Call, kernel: Callable[[], AbstractContextManager[None]]) -> _Call:
    def run() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16), kernel():
            step()

    return run


def training_step(transformer: Any, batch_size: int = _BATCH) -> _Call:
    """Forward, backward and an optimizer step that leaves the ratios where they are."""
    transformer.train()
    trained = [
        parameter
        for name, parameter in transformer.named_parameters()
        if parameter.requires_grad and name != "diffcr.ratios"
    ]
    optimizer = torch.optim.AdamW(trained, lr=1e-6)
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(28) < 20).long().expand(batch_size, -1)

    def run() -> None:
        region = int(torch.randint(_REGIONS, (), generator=generator))
        output = transformer(
            torch.randn(batch_size, 4, 24, 24),
            encoder_hidden_states=torch.randn(batch_size, 28, 128),
            encoder_attention_mask=mask,
            timestep=torch.full((batch_size,), 125 + 250 * region),
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


def timed(calls: _Calls, rounds: int) -> dict[str, Timing]:
    return time_interleaved(calls, repeats=rounds, warmup=1)


def write_step(name: str, calls: _Calls, rounds: int, **more: float) -> None:
    """Time steps and write their record."""
    more = {"batch_size": _BATCH, **more}
    times = {"training step": timed(calls, rounds)}
    write_times(name, times, {"pairs": rounds, **more}, **more)


def write_times(
    name: str,
    times: Mapping[str, Mapping[str, Timing]],
    configuration: Mapping[str, Any],
    seeds: Mapping[str, int] | None = None,
    **more: Any,
) -> None:
    """Write a record of what was timed, by part."""
    record = make_record(
        "speed",
        configuration,
        {"times": {part: summarise(timings) for part, timings in times.items()}, **more},
        seeds=seeds or {"weights": 0},
        samples={
            f"{part}/{name}": list(timing.samples)
            for part, timings in times.items()
            for name, timing in timings.items()
        },
    )
    for part, section in record.results["times"].items():
        print(part, section["ratio_to_dense"])
    print(write_record(record, RESULTS / f"{name}.json"))


def main() -> None:
    """The command line."""
    measures = {
        "methods": measure_methods,
        "frontier": measure_frontier,
        "precision": measure_precision,
        "step": measure_step,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=measures)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    measures[arguments.what](arguments.rounds)


if __name__ == "__main__":
    main()
