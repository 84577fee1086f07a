"""What step caches take and give, alone and beside DiffCR: `python benchmarks/step_caches.py`.

The rows `cached-*` of `benchmarks/untrained/` on the embedded pipeline, in turns and in one
process: CPU seconds of the whole pipeline, which a busy machine leaves alone, and the share of its
blocks that each run computes. Quality is in the rows' own records (`benchmarks/experiments.py`).
`results/step-caches-embedded.json`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from time import process_time
from typing import Any

from claim import RESULTS
from rows import OPTIONS, UNTRAINED, Run

from diffcr.evaluation.computed_share import counting_parts
from diffcr.evaluation.generate import generate_images
from diffcr.evaluation.timing.latency import Timing, summarise
from diffcr.hosts import find_transformer
from diffcr.records.record import make_record, write_record
from diffcr.scenes import ScenesDataset

DENSE = "cached-dense"
RECORD = RESULTS / "step-caches-embedded.json"
_LESS = "-at-10-steps"
_Call = Callable[[], Any]


def cached_rows() -> list[str]:
    """Names of the rows that are compared, dense first."""
    names = sorted(path.stem for path in UNTRAINED.glob("cached-*.json"))
    return sorted(names, key=lambda name: name != DENSE)


def calls(images: int) -> dict[str, tuple[Any, _Call]]:
    """A pipeline, and a call of it, by the row's name; a row at fewer steps shares its pipeline."""
    prompts = [scene.caption for scene in ScenesDataset("test", size=images)]
    names, pipes = cached_rows(), {}
    for name in names:
        of_steps = name.removesuffix(_LESS)
        if of_steps not in pipes:
            pipes[of_steps] = Run(of_steps).open()
    found = {}
    for name in names:
        pipe, steps = pipes[name.removesuffix(_LESS)], Run(name).configuration
        found[name] = (
            pipe,
            partial(
                generate_images,
                pipe,
                prompts,
                num_inference_steps=steps["num_inference_steps"],
                guidance_scale=OPTIONS.guidance_scale,
                batch_size=images,
            ),
        )
    return found


def cpu_seconds(call: _Call) -> float:
    """Of one call."""
    started = process_time()
    call()
    return process_time() - started


def measure(rounds: int, images: int) -> None:
    """Write the record."""
    subjects, computed = calls(images), {}
    for name, (pipe, call) in subjects.items():
        # Warms up, too.
        with counting_parts(find_transformer(pipe)) as counted:
            call()
        computed[name] = counted.share().mean
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, (_, call) in subjects.items():
            samples[name].append(cpu_seconds(call))
    timings = {name: Timing(tuple(seconds)) for name, seconds in samples.items()}
    dense = timings.pop(DENSE)
    results = {
        "cpu_seconds": summarise({"dense": dense, **timings}),
        "computed_share": computed,
    }
    configuration = {
        "rounds": rounds,
        "images": images,
        "guidance_scale": OPTIONS.guidance_scale,
        "rows": {name: Run(name).configuration for name in subjects},
    }
    record = make_record("speed", configuration, results, seeds={"images": 0}, samples=samples)
    print(results["cpu_seconds"]["ratio_to_dense"], write_record(record, RECORD))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=4)
    arguments = parser.parse_args()
    measure(arguments.rounds, arguments.images)


if __name__ == "__main__":
    main()
