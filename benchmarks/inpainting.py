"""Inpainting, row by row: `python benchmarks/inpainting.py quality [NAME ...]`, and `area`.

A row is a file in `benchmarks/inpainting/`: the embedded inpainting pipeline as it is ({}), a
baseline that regenerates pictures with the text-to-image model ("baseline"), a training-free method
in the decoder ("method"), or what changes in the recipe `inpainting-diffcr-lt` before it is trained
("trained"; one run per seed, in `runs/inpainting/`): the method, the part that it is attached to,
or the pictures, a folder of scenes and photographs that is written for it. Run it in the project's
root.

quality: boxes around the objects of test scenes are masked and painted again from their captions;
random masks on crops of photographs that scikit-image and scikit-learn bring, without a caption;
records `results/inpainting/NAME-seed-S.json`. What is there already is not done again.
area: seconds of whole runs by the masked share of a picture, all rows of this machine in turns;
`results/inpainting-area.json`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiments import changed
from inpainting_edits import Edit, boxes_around, likeness, marked, photograph_edits
from inpainting_pictures import write_scenes_and_photographs
from numpy.typing import NDArray
from PIL import Image
from pretrained import tile
from speed import summarised, timed_samples
from tqdm.auto import tqdm

import diffcr
from diffcr.binding.attachment import attach
from diffcr.binding.model import get_compressor, is_attached, is_routed
from diffcr.cost.counting import count_flops
from diffcr.cost.sections import compression_section
from diffcr.errors import DiffCRError
from diffcr.evaluation.quality import measure_quality
from diffcr.files import read_json, replacing_file
from diffcr.hosts.family import InputSize
from diffcr.inpainting import LazyInpaintPipeline, RegenerateCrop, RegenerateImage
from diffcr.inpainting.images.masks import masked_tokens
from diffcr.methods.registry import config_from_json_dict
from diffcr.pretrained import (
    GUIDANCE_SCALE,
    judge_path,
    load_default_inpainting,
    load_default_pipeline,
)
from diffcr.pretraining.inpainting import stretched, take_trained
from diffcr.records.record import make_record, read_record, write_record
from diffcr.scenes import Scene, ScenesDataset
from diffcr.scenes.judge import load_judge
from diffcr.training.job import run_recipe
from diffcr.training.recipe.file import find_recipe, load_recipe, recipe_from_dict
from diffcr.training.recipe.recipe import TrainingRecipe

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "inpainting"
RESULTS = ROOT / "benchmarks" / "results"
RUNS = ROOT / "runs" / "inpainting"
GIVEN = RESULTS / "inpainting" / "given.png"
SETTINGS: dict[str, Any] = {
    "images": 300,
    "photographs": 50,
    "photographs_most_masked": 0.5,
    "num_inference_steps": 20,
    "guidance_scale": GUIDANCE_SCALE,
    "resolution": 128,
    "masks": "boxes",
    "margin": 4,
    "blending": "poisson",
}
_AREAS = (0.05, 0.1, 0.25, 0.5, 1.0)
_BATCH = 25
_SHOWN = 16
_TEXT_TOKENS = 48
_PIXELS_PER_TOKEN = 8
_BASELINES = {"RegenerateImage": RegenerateImage, "RegenerateCrop": RegenerateCrop}


def row_recipe(name: str, seed: int) -> TrainingRecipe:
    """The recipe of a row that is trained."""
    shipped = load_recipe(find_recipe("inpainting-diffcr-lt")).to_json_dict()
    changes = read_json(ROWS / f"{name}.json")["trained"]
    values = {**changed(shipped, changes), "name": f"{name}-seed-{seed}", "seed": seed}
    return recipe_from_dict(values, f"{name}.json")


def open_row(name: str, seed: int) -> Any:
    """What a row is called as: a `LazyInpaintPipeline` or a baseline."""
    row = read_json(ROWS / f"{name}.json")
    if "baseline" in row:
        base = load_default_pipeline()
        base.transformer = stretched(base.transformer)
        base.set_progress_bar_config(disable=True)
        return _BASELINES[row["baseline"]](base)
    pipe = load_default_inpainting()
    pipe.set_progress_bar_config(disable=True)
    if "method" in row:
        attach(pipe, config_from_json_dict(row["method"]))
    if "trained" in row:
        _load_trained(pipe, row_recipe(name, seed))
    return pipe


def _load_trained(pipe: LazyInpaintPipeline, recipe: TrainingRecipe) -> None:
    final = _trained(recipe) / "final"
    part = recipe.inpainting and recipe.inpainting.part
    if part == "both":
        take_trained(pipe, final)
    else:
        diffcr.load(pipe.encoder if part == "encoder" else pipe, final)


def _trained(recipe: TrainingRecipe) -> Path:
    run = RUNS / recipe.name
    data = recipe.data
    if data.source != "scenes" and data.size is not None:
        write_scenes_and_photographs(Path(data.source), data.size, data.resolution)
    if not (run / "training_record.json").exists():
        run_recipe(recipe, run)
    there = recipe_from_dict(read_json(run / "training_record.json")["recipe"], str(run))
    if there != recipe:
        raise DiffCRError(f"{run} was trained with another recipe: remove it to train anew")
    return run


def measure_quality_of(name: str, seed: int) -> None:
    """Write the record of a row."""
    row = read_json(ROWS / f"{name}.json")
    configuration = {**SETTINGS, **row}
    if "trained" in row:
        configuration["recipe"] = row_recipe(name, seed).to_json_dict()
    target = RESULTS / "inpainting" / f"{name}-seed-{seed}.json"
    if target.exists() and read_record(target).configuration == configuration:
        return
    pipe = open_row(name, seed)
    test = ScenesDataset("test", size=SETTINGS["images"], resolution=SETTINGS["resolution"])
    scenes = [test[i] for i in range(len(test))]
    edits = [
        Edit(scene.image, boxes_around(scene.mask, SETTINGS["margin"]), scene.caption)
        for scene in scenes
    ]
    images = _repaint(pipe, edits, name)
    quality = measure_quality(load_judge(judge_path()), images, scenes).to_json_dict()
    photographs = photograph_edits(
        SETTINGS["photographs"], SETTINGS["resolution"], SETTINGS["photographs_most_masked"]
    )
    repainted = _repaint(pipe, photographs, f"{name}, photographs")
    results: dict[str, Any] = {
        "quality": {**quality, **likeness(images, edits)},
        "photographs": likeness(repainted, photographs),
    }
    if isinstance(pipe, LazyInpaintPipeline):
        for part in filter(is_routed, (pipe.transformer, pipe.encoder)):
            results["compression"] = compression_section(get_compressor(part))
    if "trained" in row:
        results["training"] = read_json(RUNS / f"{name}-seed-{seed}" / "training_record.json")
        results["training"].pop("recipe")
    record = make_record(
        "inpainting", configuration, results, seeds={"training": seed, "images": 0}
    )
    given = [marked(edit) for edit in [*edits[:_SHOWN], *photographs[:_SHOWN]]]
    shown = [*images[:_SHOWN], *repainted[:_SHOWN]]
    for path, pictures in ((GIVEN, given), (target.with_suffix(".png"), shown)):
        with replacing_file(path) as temporary:
            tile(pictures).save(temporary, format="png")
    print(write_record(record, target))


def _repaint(pipe: Any, edits: Sequence[Edit], name: str) -> list[Image.Image]:
    images: list[Image.Image] = []
    for start in tqdm(range(0, len(edits), _BATCH), desc=name):
        chosen = edits[start : start + _BATCH]
        made = pipe(
            [edit.caption for edit in chosen],
            image=[edit.image for edit in chosen],
            mask_image=[edit.mask for edit in chosen],
            num_inference_steps=SETTINGS["num_inference_steps"],
            guidance_scale=SETTINGS["guidance_scale"],
            blending=SETTINGS["blending"],
            generator=[torch.Generator().manual_seed(start + i) for i in range(len(chosen))],
        )
        images += made.images if isinstance(pipe, LazyInpaintPipeline) else made
    return images


def measure_area(names: Sequence[str], seed: int, pairs: int) -> None:
    """Write the record of seconds by masked area; RegenerateImage is what others are divided by."""
    names = sorted({"regenerate-image", *names})
    scene = ScenesDataset("test", resolution=SETTINGS["resolution"])[0]
    pipes = {name: open_row(name, seed) for name in names}
    results: dict[str, Any] = {}
    samples: dict[str, list[float]] = {}
    for area in _AREAS:
        mask = _square(area)
        key = f"{area:.0%}"
        runs = {
            "dense" if name == "regenerate-image" else name: _whole_run(pipe, scene, mask)
            for name, pipe in pipes.items()
        }
        timed = timed_samples(runs, pairs)
        results[key] = summarised(timed)
        tokens = int(masked_tokens(mask, _PIXELS_PER_TOKEN).sum())
        results[key]["masked_tokens"] = tokens
        results[key]["decoder_flops"] = {
            name: _decoder_flops(pipe, tokens) for name, pipe in pipes.items()
        }
        samples |= {f"{name}/{key}": values for name, values in timed.items()}
        print(key, results[key]["ratio_to_dense"], flush=True)
    record = make_record(
        "speed",
        {**SETTINGS, "pairs": pairs, "rows": list(names)},
        results,
        seeds={"training": seed},
        samples=samples,
    )
    print(write_record(record, RESULTS / "inpainting-area.json"))


def _square(area: float) -> NDArray[np.bool_]:
    side = SETTINGS["resolution"]
    extent = round(side * area**0.5)
    start = (side - extent) // 2
    mask = np.zeros((side, side), dtype=bool)
    mask[start : start + extent, start : start + extent] = True
    return mask


def _whole_run(pipe: Any, scene: Scene, mask: NDArray[np.bool_]) -> Any:
    def run() -> None:
        # A first stroke: nothing of an earlier run is used again.
        if isinstance(pipe, LazyInpaintPipeline):
            pipe.cache.clear()
        pipe(
            scene.caption,
            image=scene.image,
            mask_image=mask,
            num_inference_steps=SETTINGS["num_inference_steps"],
            guidance_scale=SETTINGS["guidance_scale"],
            dilation=0,
            generator=torch.Generator().manual_seed(0),
        )

    return run


def _decoder_flops(pipe: Any, tokens: int) -> float:
    """Of one step without guidance, full count, mean over timestep regions."""
    host = pipe.transformer if isinstance(pipe, LazyInpaintPipeline) else pipe.pipe.transformer
    count = count_flops(host, InputSize(_TEXT_TOKENS, masked_tokens=tokens))
    return (count.mean if is_attached(host) else count.dense).total


def main() -> None:
    """The command line."""
    names = sorted(path.stem for path in ROWS.glob("*.json"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["quality", "area"])
    parser.add_argument("names", nargs="*", default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.what == "area":
        measure_area(arguments.names, arguments.seeds[0], arguments.pairs)
        return
    for seed in arguments.seeds:
        for name in arguments.names:
            measure_quality_of(name, seed)


if __name__ == "__main__":
    main()
