"""A run's directory: one run at a time, its own files alone, nothing lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.methods.config import DenseConfig
from diffcr.ownership import locked_directory
from diffcr.training.job import train
from diffcr.training.run_directory import read_history
from tests.training.worker import equal, run, state, tiny_data, tiny_pipe, tiny_recipe


@pytest.fixture(scope="module")
def three_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("three") / "run"
    run(directory, tiny_recipe(steps=3))
    return directory


@pytest.fixture
def begun(three_steps: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(three_steps, tmp_path / "run"))


def test_two_runs_do_not_write_into_one_directory(tmp_path: Path) -> None:
    with (
        locked_directory(tmp_path / "run"),
        pytest.raises(DiffCRError, match="being written by another run"),
    ):
        run(tmp_path / "run", tiny_recipe(steps=2))
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    run(tmp_path / "run", tiny_recipe(steps=2))


def test_a_users_copies_of_checkpoints_are_left_alone(begun: Path) -> None:
    checkpoints = begun / "checkpoints"
    for name in ("step-best", "step-0000003-old", "step-12"):
        shutil.copytree(checkpoints / "step-0000003", checkpoints / name)
    run(begun, tiny_recipe(steps=9))
    names = {path.name for path in checkpoints.iterdir()}
    assert names == {"step-best", "step-0000003-old", "step-12", "step-0000006", "step-0000009"}


def test_checkpoints_are_in_the_order_of_their_steps(begun: Path) -> None:
    checkpoints = begun / "checkpoints"
    # By their names, the second would come first.
    for step in (9_999_999, 10_000_000):
        later = checkpoints / f"step-{step:07d}"
        shutil.copytree(checkpoints / "step-0000003", later)
        progress = json.loads((later / "progress.json").read_text())
        (later / "progress.json").write_text(json.dumps({**progress, "step": step}))
    with pytest.raises(DiffCRError, match="a run of 10000000 steps"):
        run(begun, tiny_recipe())


@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_is_in_the_place_of_a_result_is_said_before_the_first_step(
    tmp_path: Path, what: str
) -> None:
    for place in ("final", "by-products/ratio-05"):
        for method in ("diffcr", "dense"):
            directory = tmp_path / method / place.replace("/", "-")
            foreign = directory / place
            foreign.parent.mkdir(parents=True)
            if what == "directory":
                foreign.mkdir()
                (foreign / "notes.txt").write_text("mine")
            else:
                foreign.write_text("mine")
            changes = {} if method == "diffcr" else {"method": DenseConfig()}
            with pytest.raises(DiffCRError, match=f"{foreign.name} (holds other files|is a file)"):
                run(directory, tiny_recipe(**changes))
            assert not (directory / "history.jsonl").exists()


def test_a_dense_run_goes_on_over_its_own_result(tmp_path: Path) -> None:
    run(tmp_path, tiny_recipe(DenseConfig(), steps=3))
    run(tmp_path, tiny_recipe(DenseConfig(), steps=6))
    assert read_history(tmp_path / "history.jsonl")[-1]["step"] == 6


def test_a_run_that_is_not_resumed_sets_the_one_before_aside(
    begun: Path, three_steps: Path
) -> None:
    other = tiny_recipe(steps=3, seed=5)
    for number in (1, 2):
        before = state(begun, 3)
        with pytest.warns(DiffCRWarning, match=f"earlier-{number}"):
            train(other, tiny_pipe(), tiny_data(), begun, resume=False)
        assert equal(before, state(begun / f"earlier-{number}", 3))
        assert (begun / f"earlier-{number}" / "final" / "diffcr_config.json").exists()
        assert not equal(state(begun, 3), state(three_steps, 3))
        assert [line["step"] for line in read_history(begun / "history.jsonl")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("run.json", "{}"),
        ("run.json", '{"settings": 3}'),
        ("run.json", '{"settings": {}, "captions": "", "values": ["a"], "bases": []}'),
        ("history.jsonl", "[]\n"),
        ("history.jsonl", "{}\n"),
        ("history.jsonl", '{"step": "a"}\n'),
        ("history.jsonl", "not JSON\n"),
    ],
)
def test_damaged_texts_of_a_run_are_one_line(begun: Path, file: str, text: str) -> None:
    (begun / file).write_text(text)
    with pytest.raises(DiffCRError, match=f"{file}.* damaged") as caught:
        run(begun, tiny_recipe(steps=4))
    assert "\n" not in str(caught.value)
    assert (begun / file).read_text() == text


@pytest.mark.parametrize(
    "values",
    [{"step": "a"}, {"step": -1}, {"seconds": None}, {"by_products": 1.5}, {"more": 1}],
    ids=str,
)
def test_a_checkpoint_of_other_types_is_passed_over(begun: Path, values: dict[str, object]) -> None:
    progress = begun / "checkpoints/step-0000003/progress.json"
    progress.write_text(json.dumps({**json.loads(progress.read_text()), **values}))
    with (
        pytest.warns(DiffCRWarning, match="step-0000003 is passed over"),
        pytest.raises(DiffCRError, match="no checkpoint"),
    ):
        run(begun, tiny_recipe(steps=4))


def test_left_overs_of_a_killed_run_go_when_it_is_run_again(begun: Path) -> None:
    for folder in (begun, begun / "checkpoints", begun / "by-products"):
        folder.mkdir(exist_ok=True)
        (folder / ".step-0000004.0123456789ab.partial").mkdir()
    run(begun, tiny_recipe(steps=4))
    assert not list(begun.rglob("*.partial"))
    # Nor is a line of the history lost, or there twice.
    assert [line["step"] for line in read_history(begun / "history.jsonl")] == [1, 2, 3, 4]
