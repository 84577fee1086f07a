"""What a fine-tuning step takes against the dense model's: `python benchmarks/training_speed.py`.

The embedded pipeline's transformer, 8 samples of 144 tokens, float32, AdamW, with LoRA and of all
weights: tokens a CPU second, the dense model twice as control, and what is kept for backward, over
the draws of many steps. Then the same steps in two processes of one thread, with DDP and without,
on the clock. `results/training-speed-embedded.json`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
from claim import RESULTS
from speed import training_step
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel

import diffcr
from diffcr.binding.model import is_routed
from diffcr.evaluation.timing.latency import Timing, summarise
from diffcr.files import read_json, write_json
from diffcr.methods.diffcr.config import DiffCRConfig
from diffcr.pretrained import load_default_pipeline
from diffcr.records.record import make_record, write_record

RECORD = RESULTS / "training-speed-embedded.json"
_RATIO, _BATCH, _TOKENS = 0.3, 8, 144
_DRAWS, _PROCESSES, _WARMUP = 20, 2, 2


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


def kept_bytes(transformer: Any, step: Callable[[], None]) -> float:
    """Of tensors that a step keeps for its backward, the model's own not counted; a mean."""
    own = {parameter.untyped_storage().data_ptr() for parameter in transformer.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    taken = []
    for seed in range(_DRAWS):
        kept.clear()
        torch.manual_seed(seed)
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            step()
        taken.append(sum(kept.values()))
    return sum(taken) / len(taken)


def measure(rounds: int) -> None:
    """Write the record."""
    steps, kept = {}, {}
    for name, full in (("LoRA", False), ("full", True)):
        models = {"dense": None, "dense, again": None, "DiffCR at 0 %": 0.0, "DiffCR at 30 %": 0.3}
        for title, ratio in models.items():
            transformer = model(full, ratio)
            step = in_known_region(transformer)
            step()
            kept[f"{name}, {title}"] = kept_bytes(transformer, step)
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
        "kept_for_backward_bytes": kept,
        "with_ddp_of_without": overhead_of_ddp(rounds),
    }
    configuration = {"rounds": rounds, "batch_size": _BATCH, "image_tokens": _TOKENS}
    record = make_record("speed", configuration, results, seeds={"weights": 0}, samples=samples)
    print(results, write_record(record, RECORD))


def overhead_of_ddp(rounds: int) -> dict[str, float]:
    """Seconds of a LoRA step with DDP by those of one without, medians of the slower process."""
    with tempfile.TemporaryDirectory() as directory:
        spawn(_time_ddp, (rounds, directory), nprocs=_PROCESSES)
        found = [read_json(Path(directory) / f"{rank}.json") for rank in range(_PROCESSES)]
    return {name: max(each[name] for each in found) for name in found[0]}


def _time_ddp(rank: int, rounds: int, directory: str) -> None:
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{directory}/store", _PROCESSES)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=_PROCESSES)
    ratios = {}
    for title, ratio in {"dense": None, "DiffCR at 30 %": 0.3}.items():
        apart, together = model(False, ratio), model(False, ratio)
        shared = DistributedDataParallel(together)
        calls = {"without": training_step(apart, _BATCH), "with": training_step(shared, _BATCH)}
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(_WARMUP + rounds):
            for name, step in calls.items():
                torch.distributed.barrier()
                torch.manual_seed(turn)
                started = perf_counter()
                step()
                taken = perf_counter() - started
                if turn >= _WARMUP:
                    seconds[name].append(taken)
        ratios[title] = median(seconds["with"]) / median(seconds["without"])
    write_json(Path(directory) / f"{rank}.json", ratios)
    torch.distributed.destroy_process_group()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    measure(parser.parse_args().rounds)


if __name__ == "__main__":
    main()
