"""Commands that are killed: each takes a second or two."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffcr.scenes import ScenesDataset

STEPS, PICTURES, PROMPTS, SIDE = 5, 24, 6, 32
_EVERY = 2


@dataclass(frozen=True)
class Work:
    """A command that is killed.

    Attributes:
        name: In the record.
        arguments: Behind `diffcr`; the last one is the directory that it writes.
        processes: That it runs in.
        kills: How often it is killed.
        saving: Whether that is while something is half-written.
        checkpoint_every: Steps of a training; 0 for another command.
    """

    name: str
    arguments: tuple[str, ...]
    kills: int
    processes: int = 1
    saving: bool = False
    checkpoint_every: int = 0


def all_work(place: Path) -> list[Work]:
    """All that is killed: 52 kills."""
    for finetune in ("lora", "full"):
        for name, every in ((finetune, _EVERY), (f"{finetune}-saving", 1)):
            (place / f"{name}.json").write_text(json.dumps(_recipe(finetune, every)))
    (place / "prompts.txt").write_text("\n".join(f"a red circle {n}" for n in range(PROMPTS)))
    _write_pictures(place / "pictures")
    small = ("--resolution", str(SIDE), "--shard-items", "3", "--batch-size", "2")
    encode = ("encode", str(place / "pictures"), *small, "--output")
    size = ("--height", str(SIDE), "--width", str(SIDE), "--batch-size", "1", "--steps", "1")
    generate = ("generate", "--prompts", str(place / "prompts.txt"), *size, "--output")

    def train(name: str) -> tuple[str, ...]:
        return ("train", str(place / f"{name}.json"), "--output")

    return [
        Work("training-lora", train("lora"), 6, checkpoint_every=_EVERY),
        Work("training-full", train("full"), 6, checkpoint_every=_EVERY),
        Work("saving-lora", train("lora-saving"), 4, saving=True, checkpoint_every=1),
        Work("saving-full", train("full-saving"), 4, saving=True, checkpoint_every=1),
        Work("encoding", encode, 6),
        Work("generating", generate, 6),
        Work("training-lora-2", train("lora"), 4, 2, checkpoint_every=_EVERY),
        Work("training-full-2", train("full"), 4, 2, checkpoint_every=_EVERY),
        Work("saving-full-2", train("full-saving"), 4, 2, saving=True, checkpoint_every=1),
        Work("encoding-2", encode, 4, 2),
        Work("generating-2", generate, 4, 2),
    ]


def _recipe(finetune: str, checkpoint_every: int) -> dict[str, Any]:
    return {
        "name": f"kills-{finetune}-{checkpoint_every}",
        "method": {"method": "diffcr", "target_compression_ratio": 0.3, "timestep_regions": 2},
        "finetune": finetune,
        "lora_rank": 4,
        "steps": STEPS,
        "batch_size": 2,
        "log_every": 1,
        "checkpoint_every": checkpoint_every,
        "data": {"source": "scenes", "size": 4, "resolution": SIDE, "max_sequence_length": 16},
    }


def _write_pictures(folder: Path) -> None:
    folder.mkdir()
    scenes = ScenesDataset("train", size=PICTURES, resolution=SIDE)
    lines = []
    for index in range(PICTURES):
        scenes[index].image.save(folder / f"{index}.png")
        lines.append(json.dumps({"file_name": f"{index}.png", "text": scenes[index].caption}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
