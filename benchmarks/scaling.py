"""What grows with the data and the model: `python benchmarks/scaling.py WHAT`.

memory: largest resident memory of training on shards of 10 thousand and of 1 million tiny items,
and of encoding 2 and 20 thousand pictures, each in a process of its own.
estimate: what `diffcr train --estimate` says of all weights of a model of FLUX's size.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from claim import RESULTS
from diffusers import DDPMScheduler, PixArtTransformer2DModel
from PIL import Image

from diffcr.hosts.pipelines.prompt import Prompt
from diffcr.methods.diffcr.config import DiffCRConfig
from diffcr.records.record import make_record, write_record
from diffcr.scenes import ScenesDataset
from diffcr.training.data.shards import (
    ShardContents,
    ShardedDataset,
    write_empty_caption,
    write_index,
    write_shard,
)
from diffcr.training.encode_job import EncodingRequest, run_encoding
from diffcr.training.estimate import estimate_memory
from diffcr.training.job import train
from diffcr.training.recipe import DataRecipe, TrainingRecipe

_ITEMS = (10_000, 1_000_000)
_PICTURES = (2_000, 20_000)
_SHARD_ITEMS = 1_000
_STEPS, _BATCH = 600, 64
_SIDE, _TOKENS, _WIDTH, _CAPTIONS = 8, 8, 32, 50
# black-forest-labs/FLUX.1-dev, transformer/config.json and vae/config.json.
_FLUX: dict[str, dict[str, Any]] = {
    "transformer": {
        "_class_name": "FluxTransformer2DModel",
        "attention_head_dim": 128,
        "guidance_embeds": True,
        "in_channels": 64,
        "joint_attention_dim": 4096,
        "num_attention_heads": 24,
        "num_layers": 19,
        "num_single_layers": 38,
        "patch_size": 1,
        "pooled_projection_dim": 768,
    },
    "vae": {"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512]},
}


def measure_memory() -> None:
    results: dict[str, Any] = {"training": {}, "encoding": {}}
    with tempfile.TemporaryDirectory() as folder:
        for what, sizes in (("training", _ITEMS), ("encoding", _PICTURES)):
            for size in sizes:
                place = Path(folder) / f"{what}-{size}"
                make = write_items if what == "training" else write_pictures
                make(place, size)
                command = [sys.executable, __file__, what, "--place", str(place)]
                printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                results[what][str(size)] = float(printed.splitlines()[-1])
                print(what, size, results[what][str(size)], "MiB", flush=True)
    configuration = {"steps": _STEPS, "batch_size": _BATCH, "shard_items": _SHARD_ITEMS}
    record = make_record("scaling-memory", configuration, results, seeds={"data": 0})
    write_record(record, RESULTS / "scaling-memory.json")


def write_items(directory: Path, items: int) -> None:
    generator = torch.Generator().manual_seed(0)
    shards = []
    for number in range(items // _SHARD_ITEMS):
        contents = ShardContents(
            torch.randn(_SHARD_ITEMS, 4, _SIDE, _SIDE, generator=generator).half(),
            torch.randn(_CAPTIONS * _TOKENS, _WIDTH, generator=generator).half(),
            torch.arange(_CAPTIONS + 1) * _TOKENS,
            torch.randint(_CAPTIONS, (_SHARD_ITEMS,), generator=generator),
        )
        shards.append(write_shard(directory, f"{number:06d}.safetensors", contents))
    write_empty_caption(directory, Prompt(torch.zeros(1, 1, _WIDTH).half()))
    write_index(directory, {"resolution": 4 * _SIDE, "max_sequence_length": _TOKENS}, shards)


def write_pictures(directory: Path, pictures: int) -> None:
    directory.mkdir(parents=True)
    scenes, random = ScenesDataset("train"), np.random.default_rng(0)
    with (directory / "metadata.jsonl").open("w") as metadata:
        for index in range(pictures):
            pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(directory / f"{index}.png")
            text = scenes.describe(index % _CAPTIONS).caption
            metadata.write(json.dumps({"file_name": f"{index}.png", "text": text}) + "\n")


def run_training(place: Path) -> None:
    recipe = TrainingRecipe(
        "scaling",
        method=DiffCRConfig(timestep_regions=1, branching="sampled"),
        lora_rank=4,
        steps=_STEPS,
        batch_size=_BATCH,
        ema_decay=0.0,
        checkpoint_every=_STEPS,
        log_every=100,
        data=DataRecipe(str(place), resolution=4 * _SIDE, max_sequence_length=_TOKENS),
    )
    data = ShardedDataset(place, recipe.data.shuffle_window)
    transformer = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        cross_attention_dim=32,
        sample_size=_SIDE,
        caption_channels=_WIDTH,
        use_additional_conditions=False,
    )
    pipe = SimpleNamespace(transformer=transformer, scheduler=DDPMScheduler())
    train(recipe, pipe, data, place / "run")


def run_encoder(place: Path) -> None:
    run_encoding(EncodingRequest(str(place), resolution=16, shard_items=500), place / "shards")


def largest_resident_mebibytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def record_estimate() -> None:
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for part, config in _FLUX.items():
            (Path(folder) / part).mkdir()
            (Path(folder) / part / "config.json").write_text(json.dumps(config))
        for finetune in ("full", "lora"):
            recipe = TrainingRecipe(
                "flux-size",
                model=folder,
                method=DiffCRConfig(),
                finetune=finetune,  # type: ignore[arg-type]
                sharding="fsdp",
                batch_size=8,
                mixed_precision="bf16",
                gradient_checkpointing=True,
                data=DataRecipe("shards", resolution=1024, max_sequence_length=512),
            )
            estimate = estimate_memory(recipe, processes=8)
            results[finetune] = {**vars(estimate), "total": estimate.total}
            print(finetune, *estimate.lines(), sep="\n")
    configuration = {"model": "FLUX.1-dev", "processes": 8, "batch_size": 8, "resolution": 1024}
    record = make_record("memory-estimate", configuration, results, seeds={})
    write_record(record, RESULTS / "memory-estimate.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("memory", "estimate", "training", "encoding"))
    parser.add_argument("--place", type=Path, help="of the data, for one of the processes")
    arguments = parser.parse_args()
    if arguments.what == "memory":
        measure_memory()
    elif arguments.what == "estimate":
        record_estimate()
    else:
        run = run_training if arguments.what == "training" else run_encoder
        run(arguments.place)
        print(largest_resident_mebibytes())


if __name__ == "__main__":
    main()
