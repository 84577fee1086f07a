"""Make the embedded default: `python -m diffcr.pretraining.build --output DIRECTORY`.

Stages, each skipped where its result is there: text encoder, autoencoder, judge, the pipeline with
an untrained transformer, and that transformer's training by `recipes/pretrain-scenes.yaml`, which
resumes where it was stopped. A pipeline of another size than the embedded one takes over that one's
text encoder, autoencoder and judge, and begins with its untrained transformer.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffcr.files import read_json, replacing_directory, write_json
from diffcr.hardware import hardware, library_versions
from diffcr.hosts.loading import load_pipeline
from diffcr.pretrained import default_pipeline_path
from diffcr.pretraining.autoencoder import AutoencoderSettings, train_autoencoder
from diffcr.pretraining.fitting import course
from diffcr.pretraining.judge import JudgeSettings, train_judge
from diffcr.pretraining.size import EMBEDDED, SIZES, PipelineSize
from diffcr.pretraining.text import TextSettings, train_text_encoder
from diffcr.pretraining.transformer import assemble_pipeline
from diffcr.training.job import run_recipe
from diffcr.training.recipe import find_recipe, load_recipe
from diffcr.training.run_directory import read_history

RECORDS = "records"
STAGES = ("text", "autoencoder", "judge", "pipeline", "transformer")
_OF_ANY_SIZE = ("pipeline", "transformer")
# Of a file with weights, so that repositories take it.
_LARGEST_FILE = "16MB"


def build_default(
    output: Path,
    seed: int = 0,
    shorten: float = 1.0,
    stages: Sequence[str] = STAGES,
    size: PipelineSize = EMBEDDED,
    eager: bool = False,
) -> None:
    """Run the stages that are missing in `output`.

    Stages "text", "autoencoder" and "judge" do not depend on each other and may run in processes
    of their own at the same time.

    Args:
        output: Gets `pipeline/` (untrained transformer), `transformer/` (its training), `scenes/`
            (the trained pipeline), `judge/`, and in `records/` what each stage did.
        seed: Initial weights and draws of all stages are functions of it.
        shorten: Steps and pictures are multiplied with it, for a trial.
        stages: Which of `STAGES` to run; the last two need the results of those before, and are all
            that there is of another size than the embedded one's.
        size: Of the pictures and the transformer.
        eager: Whether the transformer is trained uncompiled.
    """

    def scaled(count: int) -> int:
        return max(2, round(count * shorten))

    def shortened(settings: Any) -> Any:
        counts = {
            name: scaled(value)
            for name, value in vars(settings).items()
            if name in ("steps", "images", "captions")
        }
        return replace(settings, seed=seed, **counts)

    made = output / "stages"
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        "text": lambda: train_text_encoder(shortened(TextSettings()), made),
        "autoencoder": lambda: train_autoencoder(shortened(AutoencoderSettings()), made / "vae"),
        "judge": lambda: train_judge(shortened(JudgeSettings()), output / "judge", scaled(1000)),
        "pipeline": lambda: _pipeline(output, seed, size),
        "transformer": lambda: _transformer(output, seed, shorten, size, eager),
    }
    made_here = stages if size == EMBEDDED else [s for s in stages if s in _OF_ANY_SIZE]
    for name, run in runs.items():
        path = output / RECORDS / f"{name}.json"
        if name in made_here and not path.exists():
            started = time.perf_counter()
            done = run()
            seconds = {"seconds": round(time.perf_counter() - started, 1)}
            machine = {"hardware": hardware(), "versions": library_versions()}
            write_json(path, seconds | done | machine)


def read_records(output: Path) -> dict[str, Any]:
    """What each stage in a build directory did, by stage."""
    return {path.stem: read_json(path) for path in sorted((output / RECORDS).glob("*.json"))}


def _pipeline(output: Path, seed: int, size: PipelineSize) -> dict[str, Any]:
    from diffusers import AutoencoderKL
    from transformers import T5EncoderModel, T5Tokenizer

    made = output / "stages" if size == EMBEDDED else default_pipeline_path()
    pipe = assemble_pipeline(
        AutoencoderKL.from_pretrained(made / "vae"),
        T5EncoderModel.from_pretrained(made / "text_encoder"),
        T5Tokenizer.from_pretrained(made / "tokenizer"),
        seed,
        size,
    )
    with replacing_directory(output / "pipeline") as directory:
        pipe.save_pretrained(str(directory), max_shard_size=_LARGEST_FILE)
    parts = ("transformer", "vae", "text_encoder")
    return {"parameters": {p: sum(w.numel() for w in getattr(pipe, p).parameters()) for p in parts}}


def _transformer(
    output: Path, seed: int, shorten: float, size: PipelineSize, eager: bool
) -> dict[str, Any]:
    from diffusers import PixArtTransformer2DModel

    recipe = load_recipe(find_recipe(size.recipe)).shortened(shorten)
    recipe = recipe.with_changes(
        model=str(output / "pipeline"),
        seed=seed,
        compile=recipe.compile and not eager,
        data=replace(recipe.data, resolution=size.resolution),
    )
    run = output / "transformer"
    result = run_recipe(recipe, run)
    pipe = load_pipeline(output / "pipeline", "cpu")
    pipe.transformer = PixArtTransformer2DModel.from_pretrained(run / "final" / "transformer")
    with replacing_directory(output / "scenes") as directory:
        pipe.save_pretrained(str(directory), max_shard_size=_LARGEST_FILE)
    losses = [line["loss"] for line in read_history(run / "history.jsonl")]
    return {
        "recipe": recipe.with_changes(model="").to_json_dict(),
        "seconds": round(result.seconds, 1),
        "losses": course(losses),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make a pipeline of scenes.")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shorten", type=float, default=1.0, help="factor of steps, for a trial")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--size", choices=SIZES, default="embedded")
    parser.add_argument("--eager", action="store_true", help="train uncompiled")
    given = parser.parse_args()
    size = SIZES[given.size]
    build_default(given.output, given.seed, given.shorten, given.stages, size, given.eager)


if __name__ == "__main__":
    main()
