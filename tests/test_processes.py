"""Commands in two processes: what one process makes, without duplicate or hole."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from diffcr.scenes import ScenesDataset
from diffcr.training.run_directory import read_history
from tests.training.launching import finish


def contents(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_pictures_are_those_of_one_process(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"a red circle {number}" for number in range(5)))
    for name, processes in (("one", 1), ("two", 2)):
        command = ("diffcr", "generate", "--prompts", prompts, "--output", tmp_path / name)
        finish(*command, "--steps", 1, "--batch-size", 2, processes=processes)
    assert len(list((tmp_path / "two").glob("*.png"))) == 5
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_shards_are_those_of_one_process_and_are_trained_on(tmp_path: Path) -> None:
    pictures, scenes = tmp_path / "pictures", ScenesDataset(size=10, resolution=32)
    pictures.mkdir()
    lines = []
    for index in range(len(scenes)):
        size = (32, 32) if index % 2 else (64, 32)
        scenes[index].image.resize(size, Image.Resampling.NEAREST).save(pictures / f"{index}.png")
        text = scenes[index].caption
        lines.append(json.dumps({"file_name": f"{index}.png", "text": text}))
    (pictures / "metadata.jsonl").write_text("\n".join(lines))
    for name, processes in (("one", 1), ("two", 2)):
        command = ("diffcr", "encode", pictures, "--output", tmp_path / name)
        options = ("--resolution", 32, "--largest-ratio", 2, "--shard-items", 4)
        finish(*command, *options, processes=processes)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: shards\nsteps: 2\nbatch_size: 4\nlog_every: 1\ndata: {resolution: 32}\n"
    )
    finish("diffcr", "train", recipe, "--data", tmp_path / "two", "--output", tmp_path / "run")
    assert [line["step"] for line in read_history(tmp_path / "run" / "history.jsonl")] == [1, 2]
