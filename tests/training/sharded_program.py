"""What holds while a model is sharded, in two processes: `-m tests.training.sharded_program FILE`.

The first process writes what the test compares.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

import diffcr
from diffcr.core.sharded import own_part, whole
from diffcr.errors import DiffCRError
from diffcr.training.loop import Trainer
from diffcr.training.objectives import objective_of
from diffcr.training.sharded import shard_model
from tests.hosts import denoise, inputs, pixart, scramble
from tests.training.worker import BOTH, tiny_pipe, tiny_recipe, tiny_task


def gradients_of_differing_regions() -> list[list[float]]:
    """Of the ratios, where each process has a timestep of its own."""
    transformer = pixart(layers=3)
    compressor = diffcr.attach(transformer, BOTH)
    scramble(compressor)
    transformer.train()
    shard_model(transformer, torch.device("cpu"))
    timestep = (200, 800)[dist.get_rank()]
    output = denoise(transformer, inputs(timestep=timestep, seed=dist.get_rank()))
    (output.square().mean() + compressor.ratio_loss(1.0)).backward()
    assert compressor.ratios.grad is not None
    gradient: list[list[float]] = whole(compressor.ratios.grad).tolist()
    return gradient


def what_a_trainer_holds(directory: Path) -> dict[str, object]:
    """Of a run's parameters, averages and optimizer states, and after settling."""
    recipe = tiny_recipe(sharding="fsdp", finetune="full", steps=2)
    task = tiny_task()
    whole_size = sum(p.numel() for p in task.model.parameters())
    trainer = Trainer(recipe, task, objective_of(tiny_pipe().scheduler), directory, True)
    parameters = dict(task.trained.named_parameters())
    compressor = task.trained.diffcr
    assert isinstance(compressor, nn.Module)
    for step in range(2):
        trainer._step(step)
    tensors = trainer.state.tensors()
    split = {name for name, tensor in tensors.items() if isinstance(tensor, DTensor)}
    compressor.settle_ratios()
    ratios = whole(compressor.ratios)
    with torch.no_grad():
        own_part(compressor.ratios).fill_(7.0)
    compressor.project_ratios()
    refused = []
    for refuse in (
        lambda: diffcr.attach(task.model, BOTH),
        lambda: diffcr.save(task.model, directory / "saved"),
    ):
        try:
            refuse()
        except DiffCRError as error:
            refused.append(str(error))
    return {
        "not split": sorted(n for n, p in parameters.items() if not isinstance(p, DTensor)),
        "routers and ratios": sorted(n for n in parameters if n.startswith("diffcr.")),
        "states not split": sorted(name for name in tensors.keys() - split if "/step/" not in name),
        "share": sum(own_part(p).numel() for p in parameters.values()) / whole_size,
        "on bins": bool(torch.equal(ratios, (10 * ratios).round() / 10)),
        "largest": float(whole(compressor.ratios).max()),
        "refused": refused,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found = {
        "gradients": gradients_of_differing_regions(),
        **what_a_trainer_holds(Path(sys.argv[1]).parent / "run"),
    }
    if dist.get_rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(found))
    dist.destroy_process_group()
