"""The command line: mistakes are one line and exit code 2, and lose nothing."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch

import diffcr
from diffcr.cli import main
from diffcr.cli.inputs import read_prompts
from diffcr.pretrained import default_checkpoint_path, default_pipeline_path
from tests.command_line import COMMAND, Fails, call, environment, run_diffcr


def test_a_mistake_is_one_line_and_exit_code_2() -> None:
    finished = run_diffcr("generate")
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr.splitlines() == [
        "diffcr: error: there is no prompt: give one as an argument, or --prompts FILE"
    ]


def test_a_traceback_is_shown_on_request() -> None:
    finished = run_diffcr("generate", DIFFCR_DEBUG="1")
    assert finished.returncode != 0
    assert "Traceback" in finished.stderr


@pytest.mark.parametrize(
    ("sent", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_an_interruption_is_one_line_and_an_exit_code_of_its_own(
    tmp_path: Path, sent: signal.Signals, code: int, word: str
) -> None:
    running = subprocess.Popen(
        [*COMMAND, "generate", "a star", "--steps", "1000", "--output", str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        # Tests that run in a shell's background inherit that it is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert running.stderr is not None
    printed = ""
    while "generating" not in printed:
        assert running.poll() is None, printed
        printed += running.stderr.read(1)
    running.send_signal(sent)
    rest = running.communicate(timeout=60)[1]
    assert running.returncode == code
    assert rest.splitlines()[-1] == f"diffcr: error: {word}" and "Traceback" not in rest
    assert not list(tmp_path.glob("*.png")) and not list(tmp_path.glob(".*.partial"))


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help_names_the_commands(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*arguments) == 0
    printed = capsys.readouterr().out
    commands = ("train", "generate", "eval", "score", "flops", "bench", "report", "models", "demo")
    for command in commands:
        assert command in printed


def test_usage_errors(fails: Fails) -> None:
    fails("generate", "x", "--steps", "0", saying="--steps")
    fails("generate", "x", "--seed", "some", saying="--seed")
    fails("generate", "x", "--seed", 2**70, saying="--seed")
    fails("generate", "x", "--guidance-scale", "nan", saying="guidance_scale is nan")
    fails("generate", "x", "--guidance-scale", 1e300, saying="guidance_scale is 1e+300")
    fails("generate", "x", "--steps", 10**20, saying="--steps")
    fails("generate", "x", "--steps", 1001, saying="--steps")
    fails("generate", "x", "--height", 100_000, saying="--height")
    fails("generate", "x", "--batch-size", 10**7, saying="--batch-size")
    fails("train", "scenes-diffcr-lt", "--steps", 10**12, saying="--steps")
    fails("eval", "--captions", 10**13, saying="--captions")
    fails("bench", "--batch-size", 10**7, saying="--batch-size")
    fails("bench", "--pairs", 10**9, saying="--pairs")
    fails("inpaint", "--dilation", 10**20, saying="--dilation")
    for option in ("--resolution", "--max-sequence-length", "--shard-items", "--batch-size"):
        fails("encode", "scenes", "--output", "e", option, 10**19, saying=option)
    fails("encode", "datasets:", "--output", "e", saying="datasets: names no data set")
    fails("calibrate", "--frames", 5, saying="--frames is 5, and this pipeline makes pictures")
    fails("distill", saying="--checkpoint")
    fails("distill", "--checkpoint", "c", "--model", "m", saying="--model needs --prompts")
    fails("distill", "--checkpoint", "y" * 5000, saying="y ... y")
    fails("inpaint", "--steps", 10**9, saying="--steps")
    fails("generate", "x", "--output", "y" * 5000, saying="File name too long")
    fails("generate", "x" * 5000, "--checkpoint", "y" * 5000, saying="y ... y")
    fails("report", "y" * 5000, saying="yyy")
    fails("generate", "x", "--bogus", saying="--bogus")
    fails("frobnicate", saying="frobnicate")
    fails("train", saying="recipe")
    fails("generate", "x", "--dense", "--checkpoint", "y", saying="exclude each other")
    fails("generate", "x", "--dense", "--method", "tome:0.3", saying="exclude each other")
    fails("eval", "--checkpoint", "y", "--method", "tome:0.3", saying="exclude each other")
    fails("eval", "--method", "mod:0.3", saying="makes no pictures without training")
    fails("eval", "--method", "tome", saying="give a compression ratio")
    fails("generate", "x", "--model", "y", saying="--model needs --checkpoint")


def test_prompt_errors(tmp_path: Path, fails: Fails) -> None:
    empty = tmp_path / "prompts.txt"
    empty.write_text("\n\n")
    fails("generate", "--prompts", empty, saying="is empty")
    fails("generate", "x", "--prompts", empty, saying="is empty")
    fails("eval", "--prompts", empty, saying="is empty")
    fails("generate", "--prompts", tmp_path / "none.txt", saying="cannot be read")
    fails("generate", "--prompts", tmp_path, saying="cannot be read")
    empty.write_bytes(b"\xff\xfe\xfa")
    fails("generate", "--prompts", empty, saying="cannot be read")
    fails("generate", "x", " ", saying="prompt 2 is empty")
    fails("generate", "x", "a\udcff star", saying="prompt 2 is not UTF-8")
    fails("inpaint", "--image", "a", "--mask", "b", "--prompt", "\udcff", saying="is not UTF-8")
    os.mkfifo(tmp_path / "pipe.yaml")
    fails("generate", "--prompts", tmp_path / "pipe.yaml", saying="not an ordinary file")
    fails("train", tmp_path / "pipe.yaml", saying="not an ordinary file")


def test_a_line_of_a_prompt_file_is_one_prompt(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("a\u2028b\r\n\n c\u0085d \ne\x0bf".encode())
    assert read_prompts([], file) == ["a\u2028b", "c\u0085d", "e\x0bf"]


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out == f"diffcr {diffcr.__version__}\n"


def test_warnings_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: x\nsteps: 20\ndata: {source: nowhere}\n")
    assert call("train", recipe) == 2
    assert capsys.readouterr().err.splitlines() == [
        "diffcr: warning: 20 steps with optimizer.ratio_learning_rate 0.005 bring the mean "
        "compression ratio to 10.0% at most, not to 20.0%",
        "diffcr: error: nowhere is not a folder: give 'scenes' or a folder of pictures",
    ]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes\nmore"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
    ],
)
def test_memory_that_cannot_be_had_is_one_line(
    monkeypatch: pytest.MonkeyPatch, fails: Fails, error: Exception
) -> None:
    def run_out(*_: object) -> None:
        raise error

    monkeypatch.setattr("diffcr.cli.generating.read_prompts", run_out)
    fails("generate", "x", saying="out of memory: give smaller sizes")
    monkeypatch.setattr(error, "args", ("something else",))
    if not isinstance(error, MemoryError):
        with pytest.raises(RuntimeError, match="something else"):
            main(["generate", "x"])


def test_an_output_that_is_a_file(tmp_path: Path, fails: Fails) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for command in (("generate", "x"), ("eval",), ("train", "scenes-diffcr-lt"), ("demo",)):
        fails(*command, "--output", file, saying="is a file")
    arguments = ("generate", "x", "--dense", "--model", default_pipeline_path(), "--steps", 1)
    fails(*arguments, "--output", file / "images", saying=f"{file} is a file")
    assert file.read_text() == "mine"


def test_recipe_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails) -> None:
    monkeypatch.chdir(tmp_path)
    fails("train", "scenes", saying="one of")
    fails("train", "scenes", saying="scenes-diffcr-lt")
    fails("train", tmp_path / "none.yaml", saying="none.yaml cannot be read")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: x\nstep: 4\n")
    fails("train", recipe, saying="did you mean 'steps'")
    recipe.write_text("name: x\nmethod: {method: diffcr, target_compression_ratio: 0.95}\n")
    fails("train", recipe, saying="target_compression_ratio is 0.95")
    recipe.write_text("name: x\n")
    fails("train", recipe, "--data", tmp_path / "no", saying="is not a folder")
    fails("train", "scenes-diffcr-lt", "--data", tmp_path, saying="metadata.jsonl is missing")
    fails("train", "scenes-finish", saying="give the checkpoint to go on from")
    fails("train", "scenes-finish", "--checkpoint", tmp_path / "no", saying="is not a directory")
    recipe.write_text("name: x\nmixed_precision: fp16\n")
    fails("train", recipe, saying="needs a GPU")
    (tmp_path / "report.json").write_text("{}")
    fails("eval", "--output", tmp_path, saying="holds a report")
    assert not (tmp_path / "runs").exists()


def test_model_and_checkpoint_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fails("generate", "x", "--dense", "--model", tmp_path / "no", saying="is not a directory")
    fails("generate", "x", "--dense", "--model", tmp_path, saying="no pipeline can be loaded")
    fails("generate", "x", "--checkpoint", tmp_path / "no", saying="is not a directory")
    fails("generate", "x", "--checkpoint", tmp_path, saying="diffcr_config.json cannot be read")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in default_checkpoint_path().iterdir():
        if path.is_file():
            (damaged / path.name).write_bytes(path.read_bytes()[:100])
    fails("generate", "x", "--checkpoint", damaged, saying="damaged")


def test_a_hub_id_that_cannot_be_had() -> None:
    finished = run_diffcr("generate", "x", "--checkpoint", "nobody/nothing")
    assert finished.returncode == 2
    assert "/nobody/nothing " in finished.stderr
    assert "Traceback" not in finished.stderr


def test_models_lists_what_is_supported(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("models") == 0
    printed = capsys.readouterr().out
    assert "PixArtTransformer2DModel: diffcr, mod, " in printed
    assert "FluxTransformer2DModel: diffcr, mod, " in printed
    assert "embedded pipeline: " in printed
