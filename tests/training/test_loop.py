"""Training runs: what they write, resumption, several processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import PixArtTransformer2DModel
from safetensors.torch import load_file
from torch import Tensor
from torch._dynamo import OptimizedModule
from torch.optim.optimizer import register_optimizer_step_pre_hook

import diffcr
from diffcr.attachment import get_compressor
from diffcr.config import DenseConfig, DiffCRConfig
from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.training.history import read_history
from diffcr.training.loop import train
from diffcr.training.objective import NoiseSchedule
from diffcr.training.recipe import OptimizerRecipe
from diffcr.training.run import forward_losses, make_draws, prepare_model
from tests.hosts import denoise, inputs, pixart
from tests.training.worker import METHOD, run, tiny_data, tiny_pipe, tiny_recipe

ROOT = Path(__file__).parents[2]


def _state(directory: Path, step: int) -> dict[str, Tensor]:
    return load_file(directory / "checkpoints" / f"step-{step:07d}" / "state.safetensors")


def _equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def _start(*arguments: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("finished") / "run"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run(directory, tiny_recipe())
    torch.set_num_threads(threads)
    return directory


def test_a_run_learns_ratios_and_writes_what_it_promises(finished: Path) -> None:
    history = read_history(finished / "history.jsonl")
    assert [line["step"] for line in history] == list(range(1, 13))
    assert history[-1]["ratio"] > 0.1
    assert {line["region"] for line in history} == {0, 1}
    record = json.loads((finished / "training_record.json").read_text())
    assert record["recipe"]["method"]["method"] == "diffcr"
    assert record["seconds"] > 0 and record["versions"]["torch"]
    by_products = sorted(path.name for path in (finished / "by-products").iterdir())
    assert by_products[0] == "ratio-05"
    transformer = pixart(layers=2)
    compressor = diffcr.load(transformer, finished / "final")
    assert compressor.mean_compression_ratio > 0
    early = diffcr.load(pixart(layers=2), finished / "by-products" / by_products[0])
    assert 0 < early.mean_compression_ratio < compressor.mean_compression_ratio


def test_the_callers_model_holds_the_averaged_weights(tmp_path: Path) -> None:
    pipe = tiny_pipe()
    run(tmp_path / "run", tiny_recipe(steps=4), pipe)
    loaded = pixart(layers=2)
    diffcr.load(loaded, tmp_path / "run" / "final")
    assert torch.equal(denoise(pipe.transformer, inputs()), denoise(loaded, inputs()))
    assert not pipe.transformer.training
    diffcr.detach(pipe.transformer, restore=True)
    bare = pixart(layers=2)
    assert torch.equal(denoise(pipe.transformer, inputs()), denoise(bare, inputs()))


def test_a_run_that_is_killed_ends_bit_equal(finished: Path, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    process = _start("-m", "tests.training.worker", directory, 12, "--delay", 0.25)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(read_history(directory / "history.jsonl")) < 5:
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = len(read_history(directory / "history.jsonl"))
    assert 5 <= reached < 12
    resumed = _start("-m", "tests.training.worker", directory, 12)
    assert resumed.wait(120) == 0, resumed.stderr and resumed.stderr.read().decode()
    assert _equal(_state(directory, 12), _state(finished, 12))
    progress = json.loads((directory / "checkpoints/step-0000012/progress.json").read_text())
    expected = json.loads((finished / "checkpoints/step-0000012/progress.json").read_text())
    assert {**progress, "seconds": 0} == {**expected, "seconds": 0}
    lines = [{**line, "seconds": 0} for line in read_history(directory / "history.jsonl")]
    assert lines == [{**line, "seconds": 0} for line in read_history(finished / "history.jsonl")]


@pytest.mark.parametrize("number", [3, 11])
def test_a_run_that_is_killed_while_it_saves_ends_bit_equal(
    finished: Path, tmp_path: Path, number: int
) -> None:
    directory = tmp_path / "run"
    killed = _start("-m", "tests.training.worker", directory, 12, "--die-in-save", number)
    assert killed.wait(120) == -signal.SIGKILL, killed.stderr and killed.stderr.read().decode()
    assert not (directory / "training_record.json").exists()
    resumed = _start("-m", "tests.training.worker", directory, 12)
    assert resumed.wait(120) == 0, resumed.stderr and resumed.stderr.read().decode()
    assert _equal(_state(directory, 12), _state(finished, 12))
    for name in ("final", "by-products/ratio-05"):
        before, after = (load_file(d / name / "diffcr.safetensors") for d in (finished, directory))
        assert _equal(before, after)
    assert not list(directory.rglob("*.partial"))


@pytest.mark.parametrize("damage", ["truncated", "half-written"])
def test_a_save_that_was_cut_short_falls_back(finished: Path, tmp_path: Path, damage: str) -> None:
    directory = tmp_path / "run"
    shutil.copytree(finished, directory)
    last = directory / "checkpoints" / "step-0000012"
    if damage == "truncated":
        content = (last / "state.safetensors").read_bytes()
        (last / "state.safetensors").write_bytes(content[:200])
    else:
        last.rename(directory / "checkpoints" / ".step-0000012.abc")
    torch.set_num_threads(1)
    if damage == "truncated":
        with pytest.warns(DiffCRWarning, match="passed over"):
            run(directory, tiny_recipe())
    else:
        run(directory, tiny_recipe())
    assert _equal(_state(directory, 12), _state(finished, 12))


def test_no_readable_checkpoint_is_an_error(finished: Path, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    shutil.copytree(finished, directory)
    for path in directory.glob("checkpoints/*/progress.json"):
        path.write_text("{")
    with (
        pytest.warns(DiffCRWarning, match="passed over"),
        pytest.raises(DiffCRError, match="no checkpoint .* can be read"),
    ):
        run(directory, tiny_recipe())


def test_two_processes_train_to_the_weights_of_one(finished: Path, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    launch = ("-m", "torch.distributed.run", "--nproc_per_node", 2, "--master_port", 29571)
    process = _start(*launch, "-m", "tests.training.worker", directory, 12)
    assert process.wait(180) == 0, process.stderr and process.stderr.read().decode()
    together, alone = _state(directory, 12), _state(finished, 12)
    assert together.keys() == alone.keys()
    for name in together:
        if name.startswith("parameter/"):
            assert (together[name] - alone[name]).abs().max() < 1e-3, name
    assert len(read_history(directory / "history.jsonl")) == 12


@pytest.mark.parametrize(
    "changes",
    [
        {"mixed_precision": "bf16"},
        {"gradient_checkpointing": True},
        {"gradient_accumulation": 2},
        {"distillation_weight": 1.0},
        {"ema_decay": 0.0},
        {"finetune": "full"},
        {"finetune": "full", "optimizer": OptimizerRecipe("muon", 1e-3)},
        {"tracker": "tensorboard"},
        {"finetune": "none"},
        {"method": DiffCRConfig(timestep_regions=1, branching="both", gate="sigmoid-mlp")},
    ],
    ids=lambda changes: next(iter(changes)) + "-" + str(next(iter(changes.values())))[:8],
)
def test_settings_train(tmp_path: Path, changes: dict[str, Any]) -> None:
    pipe = tiny_pipe()
    result = run(tmp_path / "run", tiny_recipe(steps=2, **changes), pipe)
    compressor = get_compressor(pipe.transformer)
    assert compressor.ratios.dtype == torch.float32
    assert bool(list((tmp_path / "run").rglob("events.out*"))) == ("tracker" in changes)
    assert result.mean_compression_ratio and result.mean_compression_ratio > 0
    loaded = pixart(layers=2)
    diffcr.load(loaded, tmp_path / "run" / "final")
    with torch.no_grad():
        assert torch.equal(denoise(loaded, inputs()), denoise(pipe.transformer, inputs()))


@pytest.mark.parametrize("method", [DenseConfig(), METHOD], ids=["dense", "diffcr"])
def test_a_compiled_run_gives_what_a_plain_one_gives(
    tmp_path: Path, method: DenseConfig | DiffCRConfig
) -> None:
    losses = []
    for compiled in (False, True):
        pipe, directory = tiny_pipe(), tmp_path / str(compiled)
        run(directory, tiny_recipe(steps=4, method=method, finetune="full", compile=compiled), pipe)
        losses.append([line["loss"] for line in read_history(directory / "history.jsonl")])
        # What is handed back is not compiled.
        assert not [m for m in pipe.transformer.modules() if isinstance(m, OptimizedModule)]
        assert method == DenseConfig() or get_compressor(pipe.transformer).run_branch is None
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][0] != losses[0][3]


def test_muon_moves_the_blocks_matrices_and_resumes_bit_equal(tmp_path: Path) -> None:
    recipe = tiny_recipe(
        steps=4, finetune="full", checkpoint_every=2, optimizer=OptimizerRecipe("muon", 1e-3)
    )
    run(tmp_path / "whole", recipe)
    run(tmp_path / "parts", replace(recipe, steps=2))
    run(tmp_path / "parts", recipe)
    whole = _state(tmp_path / "whole", 4)
    assert _equal(whole, _state(tmp_path / "parts", 4))
    momenta = {name for name in whole if name.startswith("optimizer/momentum_buffer/")}
    seconds = {name for name in whole if name.startswith("optimizer/exp_avg_sq/")}
    blocks = "transformer_blocks.0.attn1.to_q.weight"
    assert f"optimizer/momentum_buffer/{blocks}" in momenta
    assert not [name for name in momenta if "diffcr." in name or "bias" in name]
    assert [name for name in seconds if "diffcr." in name]
    assert not momenta & {name.replace("exp_avg_sq", "momentum_buffer") for name in seconds}
    # Orthogonal updates of AdamW's size: no direction outweighs the others, 0.2 * rate an entry.
    start = dict(pixart(layers=2).named_parameters())[blocks].detach()
    change = whole[f"parameter/{blocks}"] - start
    values = torch.linalg.svdvals(change)
    assert values.max() < 4 * values.median()
    assert 1e-4 < change.square().mean().sqrt() < 4 * 0.2 * 1e-3 * 1.1


def test_gradient_checkpointing_changes_no_result(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    run(tmp_path / "plain", tiny_recipe(steps=3))
    run(tmp_path / "checkpointed", tiny_recipe(steps=3, gradient_checkpointing=True))
    assert _equal(_state(tmp_path / "plain", 3), _state(tmp_path / "checkpointed", 3))


@pytest.mark.parametrize(("finetune", "file"), [("lora", "adapter"), ("full", "transformer")])
def test_the_dense_model_trains_through_the_same_loop(
    tmp_path: Path, finetune: Any, file: str
) -> None:
    result = run(tmp_path / "run", tiny_recipe(DenseConfig(), steps=2, finetune=finetune))
    assert result.mean_compression_ratio is None
    assert any((tmp_path / "run" / "final" / file).glob("*.safetensors"))


def test_another_run_in_the_directory_is_not_overwritten(finished: Path) -> None:
    with pytest.raises(DiffCRError, match="holds another run"):
        train(tiny_recipe(), tiny_pipe(), tiny_data(), finished, resume=False)


def test_accumulated_gradients_are_the_mean_over_micro_batches(tmp_path: Path) -> None:
    recipe = tiny_recipe(steps=1, gradient_accumulation=2, finetune="full")
    recipe = recipe.with_changes(optimizer=replace(recipe.optimizer, gradient_clip=0.0))
    stepped: dict[int, Tensor] = {}

    def look(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            stepped.update({id(p): p.grad.clone() for p in group["params"]})

    hook = register_optimizer_step_pre_hook(look)
    pipe = tiny_pipe()
    run(tmp_path / "run", recipe, pipe)
    hook.remove()
    accumulated = {n: stepped[id(p)] for n, p in pipe.transformer.named_parameters()}
    alone, data = tiny_pipe(), tiny_data()
    compressor = prepare_model(alone.transformer.train(), recipe)
    assert compressor is not None
    schedule, cpu = NoiseSchedule.of(alone.scheduler), torch.device("cpu")
    draws = make_draws(recipe, data, processes=1)
    for micro in range(2):
        draw = draws.micro_batch(0, micro)
        compressor.seed_branches(draw.branch_seed)
        losses = forward_losses(
            alone.transformer, alone.transformer, schedule, data, draw, recipe, cpu
        )
        (losses.total / 2 + compressor.ratio_loss(recipe.ratio_loss.weight) / 2).backward()
    for name, parameter in alone.transformer.named_parameters():
        assert parameter.grad is not None
        assert (parameter.grad - accumulated[name]).abs().max() < 1e-6, name


@pytest.mark.parametrize(
    ("changes", "saying"),
    [
        ({"seed": 1}, "seed 0, not 1"),
        ({"method": replace(METHOD, target_compression_ratio=0.5)}, "target_compression_ratio"),
        ({"steps": 6}, "a run of 12 steps"),
    ],
)
def test_another_run_does_not_go_on_from_a_runs_checkpoints(
    finished: Path, tmp_path: Path, changes: dict[str, Any], saying: str
) -> None:
    directory = tmp_path / "run"
    shutil.copytree(finished, directory)
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    with pytest.raises(DiffCRError, match=saying):
        run(directory, tiny_recipe(**changes))
    data = tiny_data()
    data.latents[0] += 1
    with pytest.raises(DiffCRError, match="other data"):
        train(tiny_recipe(), tiny_pipe(), data, directory)
    pipe = SimpleNamespace(transformer=pixart(1, layers=2), scheduler=tiny_pipe().scheduler)
    with pytest.raises(DiffCRError, match="another base model"):
        train(tiny_recipe(), pipe, tiny_data(), directory)
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


def test_a_model_that_is_told_the_pictures_size_trains(tmp_path: Path) -> None:
    pipe = tiny_pipe()
    torch.manual_seed(0)
    pipe.transformer = PixArtTransformer2DModel.from_config(
        {
            **pipe.transformer.config,
            "use_additional_conditions": True,
            "attention_head_dim": 24,
            "cross_attention_dim": 48,
        }
    )
    result = run(tmp_path / "run", tiny_recipe(steps=2), pipe)
    assert result.mean_compression_ratio and result.mean_compression_ratio > 0


def test_two_processes_train_from_the_command_line(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: two\nsteps: 2\nbatch_size: 4\nema_decay: 0.5\ndata: {size: 40}\n")
    launch = ("-m", "torch.distributed.run", "--nproc_per_node", 2, "--master_port", 29573)
    process = _start(*launch, "-m", "diffcr", "train", recipe, "--output", tmp_path / "run")
    assert process.stderr is not None
    printed = process.stderr.read().decode()
    assert process.wait(240) == 0, printed
    assert printed.count("encoding pictures: 100%") == 1
    assert len(list((tmp_path / "encoded").glob("*"))) == 1
    assert (tmp_path / "run" / "final" / "diffcr_config.json").exists()
