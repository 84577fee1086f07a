"""Pictures that are written when they are made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate import PartialState
from PIL import Image

import diffcr
from diffcr.binding.attachment import attach
from diffcr.errors import DiffCRError
from diffcr.evaluation import picture_files
from diffcr.evaluation.evaluate import evaluate, generate_all
from diffcr.evaluation.generate import Generation, generate_images
from diffcr.evaluation.options import EvaluationOptions, Subjects
from diffcr.evaluation.picture_files import (
    PictureFiles,
    begin_pictures,
    generate_pictures,
    identify_generation,
)
from diffcr.files import read_json
from diffcr.methods.diffcr.config import DiffCRConfig, MoDConfig
from tests.pipelines import tiny_pixart_pipeline

PROMPTS = [f"a red circle {number}" for number in range(7)]
GENERATION = Generation(seed=3, num_inference_steps=1, batch_size=2)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def generate(directory: Path, processes: int = 1, **changes: Any) -> None:
    pipe, files = tiny_pixart_pipeline(), PictureFiles(directory, len(PROMPTS))
    begin_pictures(files, identify_generation(pipe, PROMPTS, GENERATION), **changes)
    for process in range(processes):
        generate_pictures(pipe, PROMPTS, files, GENERATION, process, processes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    directory = tmp_path_factory.mktemp("whole")
    generate(directory)
    return contents(directory)


def test_files_hold_what_is_generated(whole: dict[str, bytes], tmp_path: Path) -> None:
    assert sorted(whole) == ["generation.json", *(f"image-000{i}.png" for i in range(7))]
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content)
    images = generate_images(tiny_pixart_pipeline(), PROMPTS, 3, 1, batch_size=2)
    files = PictureFiles(tmp_path, 7)
    assert [image.tobytes() for image in files] == [image.tobytes() for image in images]
    assert files[-1].tobytes() == images[-1].tobytes() and len(files[2:4]) == 2
    with pytest.raises(IndexError):
        files[7]


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_files_do_not_depend_on_the_number_of_processes(
    whole: dict[str, bytes], tmp_path: Path, processes: int
) -> None:
    generate(tmp_path, processes)
    assert contents(tmp_path) == whole


def test_what_is_missing_is_made_and_nothing_else(
    whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in whole.items():
        if name not in ("image-0002.png", "image-0006.png"):
            (tmp_path / name).write_bytes(content)
    made, plain = [], picture_files.generate_batch

    def watched(pipe: Any, prompts: Any, first: int, generation: Generation) -> Any:
        made.append(first)
        return plain(pipe, prompts, first, generation)

    monkeypatch.setattr(picture_files, "generate_batch", watched)
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.png")}
    generate(tmp_path, 2)
    assert contents(tmp_path) == whole and sorted(made) == [2, 6]
    assert all((tmp_path / name).stat().st_mtime_ns == time for name, time in times.items())


def test_pictures_are_there_as_soon_as_they_are_made(
    whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain: Callable[..., Any] = picture_files.generate_batch

    def interrupted(pipe: Any, prompts: Any, first: int, generation: Generation) -> Any:
        if first == 4:
            raise KeyboardInterrupt
        return plain(pipe, prompts, first, generation)

    monkeypatch.setattr(picture_files, "generate_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == 4
    monkeypatch.undo()
    generate(tmp_path)
    assert contents(tmp_path) == whole


def test_other_pictures_stay(whole: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "image-0003.png").write_bytes(b"mine")
    with pytest.raises(DiffCRError, match=r"image-0003\.png exists and was made by another"):
        generate(tmp_path)
    assert (tmp_path / "image-0003.png").read_bytes() == b"mine"
    generate(tmp_path, anew=True)
    assert contents(tmp_path) == whole


def test_what_decides_a_picture_is_told_apart() -> None:
    pipe = tiny_pixart_pipeline()
    plain = identify_generation(pipe, PROMPTS, GENERATION)
    assert plain == identify_generation(tiny_pixart_pipeline(), PROMPTS, GENERATION)
    others = [
        identify_generation(tiny_pixart_pipeline(1), PROMPTS, GENERATION),
        identify_generation(pipe, PROMPTS[:6], GENERATION),
        identify_generation(pipe, PROMPTS, Generation(4, 1)),
        identify_generation(pipe, PROMPTS, GENERATION, budget=0.5),
    ]
    compressor = diffcr.attach(pipe, DiffCRConfig())
    others.append(identify_generation(pipe, PROMPTS, GENERATION))
    compressor.set_compression_ratios(0.5)
    others.append(identify_generation(pipe, PROMPTS, GENERATION))
    with diffcr.disabled(pipe):
        others.append(identify_generation(pipe, PROMPTS, GENERATION))
    assert all(other != plain for other in others)
    assert len({str(other) for other in others}) == len(others)


def test_settings_that_came_later_had_their_defaults(tmp_path: Path) -> None:
    pipe, files = tiny_pixart_pipeline(), PictureFiles(tmp_path, 1)
    attach(pipe, MoDConfig(0.5))
    identity = identify_generation(pipe, ["a star"], Generation(0, 1, 1.0))
    earlier = json.loads(json.dumps(identity))
    del earlier["method"]["route_every"]
    Image.new("RGB", (8, 8)).save(files.path(0))
    (tmp_path / "generation.json").write_text(json.dumps(earlier))
    begin_pictures(files, identity)
    assert read_json(tmp_path / "generation.json") == json.loads(json.dumps(identity))
    earlier["method"]["compression_ratio"] = 0.3
    (tmp_path / "generation.json").write_text(json.dumps(earlier))
    with pytest.raises(DiffCRError, match="give another --output, or --force"):
        begin_pictures(files, identity)


def test_names_keep_their_order_beyond_four_digits(tmp_path: Path) -> None:
    paths = PictureFiles(tmp_path, 10_001).paths
    assert [paths[0].name, paths[-1].name] == ["image-00000.png", "image-10000.png"]
    assert sorted(paths) == paths


def test_an_evaluation_measures_the_files(tmp_path: Path) -> None:
    pipe = tiny_pixart_pipeline()
    diffcr.attach(pipe, DiffCRConfig()).set_compression_ratios(0.5)
    options = EvaluationOptions(
        num_inference_steps=1, denoiser_repeats=0, pipeline_repeats=0, map_timesteps=()
    )
    expected = evaluate(pipe, Subjects(PROMPTS), options)
    subjects = generate_all(pipe, Subjects(PROMPTS), options, tmp_path, PartialState(cpu=True))
    made = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")}
    assert made == {
        f"{name}/image-000{i}.png" for name in ("dense", "compressed") for i in range(7)
    }
    measured = evaluate(pipe, subjects, options)
    for name, model in expected.models.items():
        own = [image.tobytes() for image in measured.models[name].images]
        assert own == [image.tobytes() for image in model.images]
