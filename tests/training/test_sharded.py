"""Runs whose parameters are split over processes (FSDP2), and pictures in several processes."""

from __future__ import annotations

import json
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import diffcr
from diffcr.errors import DiffCRError
from diffcr.methods.pruning.config import StructuredPruningConfig
from diffcr.training.recipe import OptimizerRecipe
from diffcr.training.run_directory import read_history
from tests.hosts import denoise, inputs, pixart, scramble
from tests.training.launching import Program, finish
from tests.training.worker import BOTH, equal, run, tiny_recipe

WORKER = "tests.training.worker"
STEPS = 6
FULL = {"finetune": "full"}


def changes(**values: Any) -> tuple[object, ...]:
    return "--changes", json.dumps({"sharding": "fsdp", **values})


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sharded") / "run"
    finish(WORKER, directory, STEPS, *changes(**FULL), processes=2)
    return directory


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("alone") / "run"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run(directory, tiny_recipe(steps=STEPS, **FULL))
    torch.set_num_threads(threads)
    return directory


def tensors(directory: Path) -> dict[str, Tensor]:
    files = sorted(directory.rglob("*.safetensors"))
    return {
        f"{file.relative_to(directory)}/{name}": tensor
        for file in files
        for name, tensor in load_file(file).items()
    }


def names(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*")}


def test_a_sharded_run_trains_to_the_weights_of_one_process(sharded: Path, alone: Path) -> None:
    for name in ("final", "by-products/ratio-05"):
        assert names(sharded / name) == names(alone / name)
        own, other = tensors(sharded / name), tensors(alone / name)
        assert own.keys() == other.keys()
        for key, value in own.items():
            assert (value.dtype, value.shape) == (other[key].dtype, other[key].shape)
            assert torch.allclose(value, other[key], atol=1e-3), key
    lines = [read_history(path / "history.jsonl") for path in (sharded, alone)]
    assert [line["step"] for line in lines[0]] == [line["step"] for line in lines[1]]
    tables = [torch.tensor(line[-1]["table"]) for line in lines]
    assert torch.allclose(*tables, atol=1e-3)


def test_what_it_saved_loads_in_one_process_to_the_bit(sharded: Path, tmp_path: Path) -> None:
    transformer = pixart(layers=2)
    diffcr.load(transformer, sharded / "final")
    diffcr.save(transformer, tmp_path / "again")
    assert equal(tensors(tmp_path / "again"), tensors(sharded / "final"))


def test_a_sharded_run_that_is_killed_ends_bit_equal(sharded: Path, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    program = (WORKER, directory, STEPS, *changes(**FULL))
    assert Program(*program, "--die-at-step", 4, processes=2).wait() == -SIGKILL
    saved = directory / "checkpoints" / "step-0000003"
    assert len(list(saved.rglob("*.safetensors"))) == 2
    assert not list(saved.rglob("*.distcp")) and not list(saved.rglob(".metadata"))
    finish(*program, processes=2)
    last = f"checkpoints/step-{STEPS:07d}"
    assert equal(tensors(directory / last), tensors(sharded / last))
    assert equal(tensors(directory / "final"), tensors(sharded / "final"))
    assert not list(directory.rglob("*.partial"))


def test_a_sharded_adapter_is_distilled_as_in_one_process(tmp_path: Path) -> None:
    given = {"finetune": "lora", "distillation_weight": 1.0, "gradient_checkpointing": True}
    finish(WORKER, tmp_path / "two", 3, *changes(**given), processes=2)
    run(tmp_path / "one", tiny_recipe(steps=3, **given))
    own, other = tensors(tmp_path / "two" / "final"), tensors(tmp_path / "one" / "final")
    assert own.keys() == other.keys() and any("lora_A" in name for name in own)
    assert all(torch.allclose(own[name], other[name], atol=1e-4) for name in own)


def test_everything_is_split_and_regions_may_differ(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    finish("tests.training.sharded_program", file, processes=2)
    found = json.loads(file.read_text())
    assert found["not split"] == found["states not split"] == []
    assert found["routers and ratios"] == ["diffcr.ratios", "diffcr.routers.transformer_blocks"]
    assert 0.45 < found["share"] < 0.6
    assert found["on bins"] and found["largest"] == pytest.approx(0.9)
    attach, save = found["refused"]
    assert "attach first, then wrap" in attach and "split over processes" in save
    transformer = pixart(layers=3)
    compressor = diffcr.attach(transformer, BOTH)
    scramble(compressor)
    transformer.train()
    for seed, timestep in enumerate((200, 800)):
        output = denoise(transformer, inputs(timestep=timestep, seed=seed))
        ((output.square().mean() + compressor.ratio_loss(1.0)) / 2).backward()
    assert compressor.ratios.grad is not None
    assert torch.allclose(torch.tensor(found["gradients"]), compressor.ratios.grad, atol=1e-6)
    assert (compressor.ratios.grad.abs() > 1e-4).sum() >= 4


@pytest.mark.parametrize(
    ("given", "saying"),
    [
        ({"mixed_precision": "fp16"}, "mixed_precision 'fp16'"),
        ({"compile": True}, "compile"),
        ({"finetune": "full", "optimizer": OptimizerRecipe(algorithm="muon")}, "'muon'"),
        ({"finetune": "full", "method": StructuredPruningConfig()}, "method 'pruning'"),
    ],
)
def test_what_is_not_sharded_is_refused(given: dict[str, Any], saying: str) -> None:
    with pytest.raises(DiffCRError, match=saying):
        tiny_recipe(sharding="fsdp", **given)


def test_one_process_has_nothing_to_share(tmp_path: Path) -> None:
    with pytest.raises(DiffCRError, match="start several with torchrun"):
        run(tmp_path, tiny_recipe(sharding="fsdp"))
