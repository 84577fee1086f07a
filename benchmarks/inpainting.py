"""Inpainting, row by row: `python benchmarks/inpainting.py quality [NAME ...]`, and `pretraining`.

A row is a file in `benchmarks/inpainting/`: the embedded inpainting pipeline as it is ({}), a
baseline that regenerates pictures with the text-to-image model ("baseline"), a training-free method
in the decoder ("method"), or what changes in the recipe `inpainting-diffcr-lt` before it is trained
("trained"; one run per seed, in `runs/inpainting/`): the method, the part that it is attached to,
or the pictures, a folder of scenes and photographs that is written for it. It may have settings of
its own: denoising steps, and fewer pictures. Run it in the project's root.

quality: boxes around the objects of test scenes are masked and painted again from their captions;
random masks on crops of photographs that scikit-image and scikit-learn bring, without a caption;
records `results/inpainting/NAME-seed-S.json`, and of seed 0 a sheet of the first scenes for the
rows that the figure shows. What is there already is not done again.
pretraining: NAME is the directory of `make pretrain-inpainting`, whose models have to be the
embedded ones; the record `results/pretraining-inpainting.json` says how they were trained.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from experiments import train
from inpainting_edits import (
    likeness,
    marked,
    photograph_edits,
    scene_edit,
    write_scenes_and_photographs,
)
from inpainting_tables import RESULTS, TITLES
from PIL import Image
from pretrained import tile
from rows import ROOT, changed
from tqdm.auto import tqdm

import diffcr
from diffcr.binding.attachment import attach
from diffcr.binding.model import get_compressor, is_routed
from diffcr.errors import DiffCRError
from diffcr.evaluation.compression import Compression
from diffcr.evaluation.quality import measure_quality
from diffcr.files import read_json, replacing_file
from diffcr.inpainting import LazyInpaintPipeline, RegenerateCrop, RegenerateImage
from diffcr.inpainting.example import Example
from diffcr.inpainting.opening import load_inpainting_pipeline
from diffcr.methods.registry import config_from_json_dict
from diffcr.pretrained import (
    GUIDANCE_SCALE,
    judge_path,
    load_default_inpainting,
    load_default_pipeline,
)
from diffcr.pretraining.inpainting import stretched, take_trained
from diffcr.records.record import make_record, read_record, write_record
from diffcr.scenes import ScenesDataset
from diffcr.scenes.judge import load_judge
from diffcr.training.recipe import TrainingRecipe, find_recipe, load_recipe, recipe_from_dict
from diffcr.training.run_directory import read_history

ROWS = ROOT / "benchmarks" / "inpainting"
RUNS = ROOT / "runs" / "inpainting"
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
SHOWN_SEED = 0
_SHOWN = 8
_BATCH = 25
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
    pipe = load_default_pipeline() if "baseline" in row else load_default_inpainting()
    pipe.set_progress_bar_config(disable=True)
    if "baseline" in row:
        pipe.transformer = stretched(pipe.transformer)
        return _BASELINES[row["baseline"]](pipe)
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
    run, data = RUNS / recipe.name, recipe.data
    if data.source != "scenes" and data.size is not None:
        write_scenes_and_photographs(Path(data.source), data.size, data.resolution)
    train(recipe, run)
    return run


def measure_quality_of(name: str, seed: int) -> None:
    """Write the record of a row."""
    configuration = {**SETTINGS, **read_json(ROWS / f"{name}.json")}
    if "trained" in configuration:
        configuration["recipe"] = row_recipe(name, seed).to_json_dict()
    target = RESULTS / "inpainting" / f"{name}-seed-{seed}.json"
    if target.exists() and read_record(target).configuration == configuration:
        return
    pipe, side = open_row(name, seed), SETTINGS["resolution"]
    test = ScenesDataset("test", size=configuration["images"], resolution=side)
    scenes = list(test)
    edits = [scene_edit(scene, SETTINGS["margin"]) for scene in scenes]
    photographs = photograph_edits(
        configuration["photographs"], side, SETTINGS["photographs_most_masked"]
    )
    steps = configuration["num_inference_steps"]
    images, repainted = (_repaint(pipe, asked, steps, name) for asked in (edits, photographs))
    quality = measure_quality(load_judge(judge_path()), images, scenes).to_json_dict()
    results: dict[str, Any] = {
        "scenes": {**quality, **likeness(images, edits)},
        "photographs": likeness(repainted, photographs),
    }
    if isinstance(pipe, LazyInpaintPipeline):
        for part in filter(is_routed, (pipe.transformer, pipe.encoder)):
            results["compression"] = Compression.of(get_compressor(part)).to_json_dict()
    if "trained" in configuration:
        results["training"] = read_json(RUNS / f"{name}-seed-{seed}" / "training_record.json")
        results["training"].pop("recipe")
    seeds = {"training": seed, "images": 0}
    record = make_record("inpainting", configuration, results, seeds=seeds)
    if seed == SHOWN_SEED and name in TITLES:
        given = [marked(edit) for edit in edits[:_SHOWN]]
        for path, shown in ((target.with_name("given.png"), given), (target, images[:_SHOWN])):
            with replacing_file(path.with_suffix(".png")) as temporary:
                tile(shown).save(temporary, format="png", optimize=True)
    print(write_record(record, target))


def _repaint(pipe: Any, edits: Sequence[Example], steps: int, name: str) -> list[Image.Image]:
    images: list[Image.Image] = []
    for start in tqdm(range(0, len(edits), _BATCH), desc=name):
        chosen = edits[start : start + _BATCH]
        made = pipe(
            [edit.prompt for edit in chosen],
            image=[edit.image for edit in chosen],
            mask_image=[edit.mask for edit in chosen],
            num_inference_steps=steps,
            guidance_scale=SETTINGS["guidance_scale"],
            blending=SETTINGS["blending"],
            generator=[torch.Generator().manual_seed(start + i) for i in range(len(chosen))],
        )
        images += made.images if isinstance(pipe, LazyInpaintPipeline) else made
    return images


def record_pretraining(build: Path) -> None:
    """Write the record of the embedded pipeline's training.

    Raises:
        DiffCRError: The embedded models are not those of the build.
    """
    built, embedded = load_inpainting_pipeline(build / "pipeline"), load_default_inpainting()
    for part in ("transformer", "encoder"):
        ours = getattr(built, part).state_dict()
        for name, weights in getattr(embedded, part).state_dict().items():
            # As they are stored.
            if not torch.equal(ours[name].half(), weights.half()):
                raise DiffCRError(f"{part}.{name} of the build is not the embedded one")
    trained = read_json(build / "training" / "training_record.json")
    history = read_history(build / "training" / "history.jsonl")
    recipe = trained.pop("recipe")
    results = {**trained, "losses": [[line["step"], line["loss"]] for line in history]}
    seeds = {"training": recipe["seed"]}
    record = make_record("pretraining-inpainting", {"recipe": recipe}, results, seeds=seeds)
    print(write_record(record, RESULTS / "pretraining-inpainting.json"))


def main() -> None:
    """The command line."""
    names = sorted(path.stem for path in ROWS.glob("*.json"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["quality", "pretraining"])
    parser.add_argument("names", nargs="*", default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--seeds", type=int, nargs="+", default=[SHOWN_SEED])
    arguments = parser.parse_args()
    if arguments.what == "pretraining":
        record_pretraining(Path(arguments.names[0]))
        return
    for seed in arguments.seeds:
        for name in arguments.names:
            measure_quality_of(name, seed)


if __name__ == "__main__":
    main()
