"""What compiling takes before it gives: `python benchmarks/compile_times.py`.

The embedded pipeline's transformer, dense and with its checkpoint, compiled in each of the ways
that are offered, in a process of its own: once with an empty cache, and once with what that left.
The seconds until one call in each of four timestep regions was through, those of as many calls of
another size, the graphs that were made, and the seconds of a call afterwards.
`results/compile-times-embedded.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from claim import RESULTS
from tqdm.auto import tqdm

import diffcr
from diffcr.evaluation.timing.speed import forward_inputs
from diffcr.pretrained import default_checkpoint_path, load_default_pipeline
from diffcr.records.record import make_record, write_record

RECORD = RESULTS / "compile-times-embedded.json"
_TIMESTEPS, _TEXT, _BATCH, _STEADY = (125, 375, 625, 875), 28, 2, 10
_ROWS, _OTHER_ROWS = 24, 32


def _nothing(pipe: Any, **options: Any) -> None:
    return None


def _repeated_blocks(pipe: Any, **options: Any) -> None:
    for block in pipe.transformer.transformer_blocks:
        block.compile(fullgraph=True, **options)


def _whole(pipe: Any, **options: Any) -> None:
    pipe.transformer.compile(fullgraph=True, **options)


def _model(pipe: Any, **options: Any) -> None:
    diffcr.compile(pipe, granularity="model", **options)


# Whether the checkpoint is loaded, how it is compiled, and torch.compile's options.
WAYS: dict[str, tuple[bool, Callable[..., None], dict[str, Any]]] = {
    "dense, eager": (False, _nothing, {}),
    "dense, its blocks": (False, _repeated_blocks, {"dynamic": False}),
    "dense, whole": (False, _whole, {"dynamic": False}),
    "DiffCR-LT, eager": (True, _nothing, {}),
    "DiffCR-LT, its blocks": (True, diffcr.compile, {}),
    "DiffCR-LT, its blocks, dynamic": (True, diffcr.compile, {"dynamic": True}),
    "DiffCR-LT, whole": (True, _model, {}),
}


@torch.no_grad()
def run(way: str, backend: str) -> dict[str, float]:
    """Compile in one of the ways, and call."""
    routed, compile_it, options = WAYS[way]
    pipe = load_default_pipeline("cpu")
    if routed:
        diffcr.load(pipe, default_checkpoint_path())
    model = pipe.transformer.requires_grad_(False).eval()
    compile_it(pipe, **options, **({} if compile_it is _nothing else {"backend": backend}))
    found: dict[str, float] = {}
    for name, rows in (("first_size_seconds", _ROWS), ("second_size_seconds", _OTHER_ROWS)):
        inputs = forward_inputs(model, _BATCH, rows, rows, _TEXT, list(_TIMESTEPS))
        started = time.perf_counter()
        for timestep in _TIMESTEPS:
            model(**inputs[timestep])
        found[name] = time.perf_counter() - started
    started = time.perf_counter()
    for _ in range(_STEADY):
        for timestep in _TIMESTEPS:
            model(**inputs[timestep])
    found["call_seconds"] = (time.perf_counter() - started) / (_STEADY * len(_TIMESTEPS))
    found["graphs"] = float(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    return found


def _in_a_process(way: str, backend: str, cache: Path) -> dict[str, float]:
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(cache)}
    command = [sys.executable, "-P", __file__, "--way", way, "--backend", backend]
    ran = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def measure(backend: str, ways: list[str], to: Path) -> None:
    """Write the record."""
    results: dict[str, Any] = {}
    for way in tqdm(ways, desc="compiling"):
        with tempfile.TemporaryDirectory() as cache:
            results[way] = {
                name: _in_a_process(way, backend, Path(cache))
                for name in ("empty cache", "filled cache")
            }
    configuration = {
        "backend": backend,
        "batch_size": _BATCH,
        "latent_rows": [_ROWS, _OTHER_ROWS],
        "timesteps": list(_TIMESTEPS),
    }
    print(
        results, write_record(make_record("speed", configuration, results, seeds={"inputs": 0}), to)
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="inductor")
    parser.add_argument("--way", choices=WAYS, help="in this process, as JSON, without a record")
    parser.add_argument("--output", type=Path, default=RECORD)
    asked = parser.parse_args()
    if asked.way:
        print(json.dumps(run(asked.way, asked.backend)))
    else:
        measure(asked.backend, list(WAYS), asked.output)


if __name__ == "__main__":
    main()
