"""Where a forward at batch 1 spends its time: `benchmarks/profile_forward.py --output FILE`.

PixArt-Sigma XL's configuration with random weights, bfloat16, dense and with 30 % of the tokens
left out of every layer: every operation's own seconds on the device and how often it ran, the
largest first, and how many operations were launched in all.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from diffcr.checkpoint.contenders import DENSE, build, parse_contender
from diffcr.evaluation.timing.speed import INPUTS_SEED, forward_inputs
from diffcr.evaluation.timing.subject import WEIGHTS_SEED, open_subject
from diffcr.records.record import make_record, write_record

_MODEL, _METHOD, _TIMESTEP = "pixart-sigma-xl", "diffcr:0.3", 500
_FORWARDS, _SHOWN = 3, 25


@torch.no_grad()
def profiled(model: Any, inputs: dict[str, Any], on_gpu: bool) -> dict[str, Any]:
    """Operations of a forward, mean over some."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    model(**inputs)
    with profile(activities=activities) as watched:
        for _ in range(_FORWARDS):
            model(**inputs)
    own = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    events = sorted(watched.key_averages(), key=lambda event: -getattr(event, own))
    return {
        "seconds": sum(getattr(event, own) for event in events) / 1e6 / _FORWARDS,
        "launches": sum(event.count for event in events) / _FORWARDS,
        "operations": {
            event.key: {
                "seconds": getattr(event, own) / 1e6 / _FORWARDS,
                "count": event.count / _FORWARDS,
            }
            for event in events[:_SHOWN]
        },
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args()
    subject = open_subject(_MODEL, asked.resolution, "bfloat16", "", asked.tiny)
    on_gpu = subject.device.type == "cuda"
    size = (1, subject.side, subject.side, subject.text_tokens, [_TIMESTEP])
    inputs = forward_inputs(subject.transformer, *size)[_TIMESTEP]
    contenders = (DENSE, parse_contender(_METHOD))
    results = {
        contender.name: profiled(build(contender, subject.transformer), inputs, on_gpu)
        for contender in contenders
    }
    configuration = {"model": subject.name, "resolution": asked.resolution, "dtype": "bfloat16"}
    seeds = {"weights": WEIGHTS_SEED, "inputs": INPUTS_SEED}
    print(write_record(make_record("profile", configuration, results, seeds=seeds), asked.output))


if __name__ == "__main__":
    main()
