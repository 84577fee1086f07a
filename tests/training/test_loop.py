"""Training runs: what they write, resumption, several processes."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import diffcr
from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.training import optimization
from diffcr.training.job import train
from diffcr.training.recipe import OptimizerRecipe, RatioLossRecipe
from diffcr.training.run_directory import read_history
from tests.hosts import denoise, inputs, pixart, trained_pixart
from tests.training.launching import Program, finish, torchrun
from tests.training.worker import METHOD, equal, run, state, tiny_data, tiny_pipe, tiny_recipe

WORKER = "tests.training.worker"


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
    transformer = pixart(layers=2)
    compressor = diffcr.load(transformer, finished / "final")
    assert compressor.mean_compression_ratio > 0


def test_a_by_product_has_learned_the_ratio_that_it_is_named_after(finished: Path) -> None:
    by_products = sorted((finished / "by-products").iterdir())
    assert by_products[0].name == "ratio-05" and len(by_products) > 1
    for directory in by_products:
        named = int(directory.name.removeprefix("ratio-")) / 100
        learned = diffcr.load(pixart(layers=2), directory).mean_compression_ratio
        assert named <= learned < named + 0.05


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
    program = Program(WORKER, directory, 12, "--delay", 0.25)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(read_history(directory / "history.jsonl")) < 5:
        assert program.running, program.printed
        time.sleep(0.05)
    program.send(signal.SIGKILL)
    assert program.wait() == -signal.SIGKILL
    reached = len(read_history(directory / "history.jsonl"))
    assert 5 <= reached < 12
    finish(WORKER, directory, 12)
    assert equal(state(directory, 12), state(finished, 12))
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
    killed = Program(WORKER, directory, 12, "--die-in-save", number)
    assert killed.wait() == -signal.SIGKILL, killed.printed
    assert not (directory / "training_record.json").exists()
    finish(WORKER, directory, 12)
    assert equal(state(directory, 12), state(finished, 12))
    for name in ("final", "by-products/ratio-05"):
        before, after = (load_file(d / name / "diffcr.safetensors") for d in (finished, directory))
        assert equal(before, after)
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
    assert equal(state(directory, 12), state(finished, 12))


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


def test_two_processes_that_are_terminated_go_on_to_the_weights_of_one(
    finished: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    program = Program(WORKER, directory, 12, "--delay", 0.25, processes=2)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(read_history(directory / "history.jsonl")) < 4:
        assert program.running, program.printed
        time.sleep(0.05)
    program.send(signal.SIGTERM)
    while program.running and time.monotonic() < deadline:
        time.sleep(0.05)
    assert program.wait() == 128 + signal.SIGTERM, program.printed
    (reached,) = re.findall(r"stopped and saved after step (\d+)", program.printed)
    assert 4 <= int(reached) < 12
    assert (directory / "checkpoints" / f"step-{int(reached):07d}").exists()
    finish(WORKER, directory, 12, processes=2)
    together, alone = state(directory, 12), state(finished, 12)
    assert together.keys() == alone.keys()
    for name in together:
        if name.startswith("parameter/"):
            assert (together[name] - alone[name]).abs().max() < 1e-3, name
    assert len(read_history(directory / "history.jsonl")) == 12


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


def test_two_processes_train_from_the_command_line(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: two\nsteps: 2\nbatch_size: 4\nema_decay: 0.5\ndata: {size: 40}\n")
    printed = torchrun("-m", "diffcr", "train", recipe, "--output", tmp_path / "run")
    # A bar says 0 % once, when it appears; 100 % once or twice.
    assert printed.count("encoding pictures:   0%") == 1
    assert len(list((tmp_path / "encoded").glob("*"))) == 1
    assert (tmp_path / "run" / "final" / "diffcr_config.json").exists()


def test_settled_ratios_stay_and_a_run_that_is_interrupted_then_ends_bit_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(ratio_loss=RatioLossRecipe(weight=30.0, settle=0.5))
    run(tmp_path / "whole", recipe)
    history = read_history(tmp_path / "whole" / "history.jsonl")
    moving, settled = history[:6], history[6:]
    assert len({str(line["table"]) for line in moving}) == 6
    assert len({str(line["table"]) for line in settled}) == 1
    ratios = torch.tensor(settled[0]["table"])
    assert torch.equal(ratios, (10 * ratios).round() / 10) and ratios.mean() > 0.1
    compressor = diffcr.load(pixart(layers=2), tmp_path / "whole" / "final")
    assert torch.equal(compressor.learned_compression_ratios, compressor.compression_ratios)

    factor = optimization.learning_rate_factor

    def interrupted(optimizer: OptimizerRecipe, step: int, steps: int) -> float:
        if step == 9:
            raise KeyboardInterrupt
        return factor(optimizer, step, steps)

    monkeypatch.setattr(optimization, "learning_rate_factor", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "halved", recipe)
    monkeypatch.undo()
    run(tmp_path / "halved", recipe)
    assert equal(state(tmp_path / "halved", 12), state(tmp_path / "whole", 12))


def test_regions_share_their_ratios_first_and_learn_their_own_then(tmp_path: Path) -> None:
    run(tmp_path, tiny_recipe(ratio_loss=RatioLossRecipe(weight=30.0, shared=0.5)))
    tables = [torch.tensor(line["table"]) for line in read_history(tmp_path / "history.jsonl")]
    assert all(torch.equal(table[:, 0], table[:, 1]) for table in tables[:6])
    assert len({str(table) for table in tables[:6]}) == 6
    assert not any(torch.equal(table[:, 0], table[:, 1]) for table in tables[6:])


def test_settled_training_computes_what_inference_computes() -> None:
    transformer = trained_pixart()
    transformer.diffcr.settle_ratios()
    expected = denoise(transformer, inputs())
    transformer.train()
    output = denoise(transformer, inputs())
    assert torch.equal(output, expected)
    output.square().mean().backward()
    assert torch.equal(transformer.diffcr.ratios.grad, torch.zeros(3, 4))
    assert all((router.grad != 0).any() for router in transformer.diffcr.routers.values())


def test_a_second_run_of_the_same_model_learns_again(tmp_path: Path) -> None:
    pipe = tiny_pipe()
    steered = RatioLossRecipe(weight=30.0, settle=0.5, noise_emphasis=0.5)
    run(tmp_path / "first", tiny_recipe(finetune="none", ratio_loss=steered), pipe)
    compressor = pipe.transformer.diffcr
    assert not compressor.settled and compressor.gradient_scales is None
    run(tmp_path / "second", tiny_recipe(finetune="none"), pipe)
    history = read_history(tmp_path / "second" / "history.jsonl")
    assert len({str(line["table"]) for line in history}) == 12
