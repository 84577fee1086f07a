"""A tiny training run, as a program: `python -m tests.training.worker DIRECTORY STEPS`."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import safetensors.torch
import torch
from diffusers import DPMSolverMultistepScheduler
from safetensors.torch import load_file
from torch import Tensor

from diffcr.hosts.pipelines.prompt import Prompt
from diffcr.methods.config import MethodConfig
from diffcr.methods.diffcr.config import DiffCRConfig
from diffcr.training import optimization
from diffcr.training.data.encoding import EncodedDataset
from diffcr.training.job import train
from diffcr.training.recipe import OptimizerRecipe, RatioLossRecipe, TrainingRecipe
from diffcr.training.run_directory import TrainingResult
from diffcr.training.task import TextToImage
from tests.hosts import pixart

METHOD = DiffCRConfig(target_compression_ratio=0.3, timestep_regions=2)
BOTH = DiffCRConfig(target_compression_ratio=0.3, timestep_regions=2, branching="both")
STILL = OptimizerRecipe(learning_rate=0.0, router_learning_rate=0.0, ratio_learning_rate=0.0)


def tiny_recipe(method: MethodConfig = METHOD, **changes: Any) -> TrainingRecipe:
    return TrainingRecipe(
        name="tiny",
        method=method,
        lora_rank=2,
        steps=12,
        batch_size=4,
        ema_decay=0.9,
        checkpoint_every=3,
        log_every=1,
        optimizer=OptimizerRecipe(learning_rate=1e-2, ratio_learning_rate=5e-2, warmup_steps=2),
        ratio_loss=RatioLossRecipe(raise_every=2, ramp=0.3),
    ).with_changes(**changes)


def tiny_data() -> EncodedDataset:
    generator = torch.Generator().manual_seed(0)
    return EncodedDataset(
        torch.randn(10, 4, 8, 8, generator=generator),
        Prompt(torch.randn(4, 5, 32, generator=generator), torch.ones(4, 5, dtype=torch.long)),
        torch.tensor([1, 2, 3, 1, 2, 3, 1, 2, 3, 1]),
    )


def tiny_pipe() -> SimpleNamespace:
    return SimpleNamespace(transformer=pixart(layers=2), scheduler=DPMSolverMultistepScheduler())


def tiny_task() -> TextToImage:
    return TextToImage(tiny_pipe(), tiny_data())


def run(directory: Path, recipe: TrainingRecipe, pipe: Any = None) -> TrainingResult:
    return train(recipe, pipe or tiny_pipe(), tiny_data(), directory)


def state(directory: Path, step: int) -> dict[str, Tensor]:
    return load_file(directory / "checkpoints" / f"step-{step:07d}" / "state.safetensors")


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def _stretch_steps(seconds: float) -> None:
    """So that a kill finds the run in its middle."""
    plain = torch.optim.AdamW.step

    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(seconds)
        return plain(*args, **kwargs)

    torch.optim.AdamW.step = slow  # type: ignore[method-assign]


def _die_at_step(number: int) -> None:
    """The process is killed when the step begins."""
    plain = optimization.learning_rate_factor

    def factor(recipe: OptimizerRecipe, step: int, steps: int) -> float:
        if step == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(recipe, step, steps)

    optimization.learning_rate_factor = factor


def _die_in_save(number: int) -> None:
    """The process is killed when half of the `number`th file of tensors is written."""
    plain, saves = safetensors.torch.save_file, itertools.count(1)

    def save(tensors: dict[str, torch.Tensor], path: Any, *args: Any) -> None:
        plain(tensors, path, *args)
        if next(saves) == number:
            whole = Path(path).read_bytes()
            Path(path).write_bytes(whole[: len(whole) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    safetensors.torch.save_file = save


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("steps", type=int)
    parser.add_argument("--delay", type=float, default=0)
    parser.add_argument("--die-in-save", type=int, default=0)
    parser.add_argument("--die-at-step", type=int, default=-1)
    parser.add_argument("--changes", type=json.loads, default={}, help="of the recipe, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.delay:
        _stretch_steps(arguments.delay)
    if arguments.die_in_save:
        _die_in_save(arguments.die_in_save)
    _die_at_step(arguments.die_at_step)
    run(arguments.directory, tiny_recipe(steps=arguments.steps, **arguments.changes))
