"""Make the embedded default: `python -m diffcr.pretraining.build --output DIRECTORY`.

Stages, each skipped where its result is there: text encoder, autoencoder, judge, the pipeline with
an untrained transformer, and that transformer's training by `recipes/pretrain-scenes.yaml`, which
resumes where it was stopped.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from diffcr.core.images import image_tensor
from diffcr.files import read_json, replacing_directory, write_json
from diffcr.hardware import hardware, library_versions
from diffcr.pretraining.autoencoder import (
    AutoencoderSettings,
    reconstruction_psnr,
    train_autoencoder,
)
from diffcr.pretraining.judge import JudgeSettings, train_judge
from diffcr.pretraining.text import TextSettings, make_tokenizer, train_text_encoder
from diffcr.pretraining.transformer import assemble_pipeline
from diffcr.scenes import ScenesDataset
from diffcr.scenes.judge import attribute_accuracy, save_judge
from diffcr.training.job import run_recipe
from diffcr.training.recipe import TrainingRecipe, find_recipe, load_recipe
from diffcr.training.run_directory import read_history

RECORDS = "records"


class _Progress:
    """A bar with an ETA, and the losses for the record."""

    def __init__(self, name: str, steps: int) -> None:
        self.bar = tqdm(total=steps, desc=name, mininterval=1)
        self.losses: list[float] = []
        self.started = time.perf_counter()

    def __call__(self, step: int, loss: float) -> None:
        self.losses.append(loss)
        self.bar.set_postfix(loss=f"{loss:.3g}")
        self.bar.update()

    def summary(self) -> dict[str, Any]:
        """Seconds and the course of the loss."""
        self.bar.close()
        seconds = round(time.perf_counter() - self.started, 1)
        return {"seconds": seconds, "losses": _course(self.losses)}


def _course(losses: list[float]) -> list[float]:
    """Losses averaged over each fiftieth of them."""
    size = max(1, len(losses) // 50)
    parts = (losses[i : i + size] for i in range(0, len(losses), size))
    return [round(sum(part) / len(part), 5) for part in parts]


STAGES = ("text", "autoencoder", "judge", "pipeline", "transformer")


def build(
    output: Path, seed: int = 0, shorten: float = 1.0, stages: Sequence[str] = STAGES
) -> None:
    """Run the stages that are missing in `output`.

    Stages "text", "autoencoder" and "judge" do not depend on each other and may run in processes
    of their own at the same time.

    Args:
        output: Gets `pipeline/` (untrained transformer), `transformer/` (its training), `scenes/`
            (the trained pipeline), `judge/`, and in `records/` what each stage did.
        seed: Of everything.
        shorten: Steps and pictures are multiplied with it, for a trial.
        stages: Which of `STAGES` to run; the last two need the results of those before.
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
        "text": lambda: _text(made, shortened(TextSettings())),
        "autoencoder": lambda: _autoencoder(made, shortened(AutoencoderSettings())),
        "judge": lambda: _judge(output, shortened(JudgeSettings()), scaled(1000)),
        "pipeline": lambda: _pipeline(output, seed),
    }
    for name, run in runs.items():
        if name in stages:
            _stage(output, name, run)
    if "transformer" in stages:
        recipe = load_recipe(find_recipe("pretrain-scenes")).shortened(shorten)
        recipe = recipe.with_changes(model=str(output / "pipeline"), seed=seed)
        _stage(output, "transformer", lambda: _transformer(output, recipe))


def _stage(output: Path, name: str, run: Callable[[], dict[str, Any]]) -> None:
    path = output / RECORDS / f"{name}.json"
    if not path.exists():
        write_json(path, run() | {"hardware": hardware(), "versions": library_versions()})


def read_records(output: Path) -> dict[str, Any]:
    """What each stage in a build directory did, by stage."""
    return {path.stem: read_json(path) for path in sorted((output / RECORDS).glob("*.json"))}


def _text(stages: Path, settings: TextSettings) -> dict[str, Any]:
    progress = _Progress("text encoder", settings.steps)
    tokenizer = make_tokenizer()
    encoder = train_text_encoder(settings, tokenizer, progress)
    with replacing_directory(stages / "tokenizer") as directory:
        tokenizer.save_pretrained(str(directory))
    with replacing_directory(stages / "text_encoder") as directory:
        encoder.save_pretrained(str(directory))
    return {"settings": asdict(settings), **progress.summary()}


def _autoencoder(stages: Path, settings: AutoencoderSettings) -> dict[str, Any]:
    progress = _Progress("autoencoder", settings.steps)
    vae = train_autoencoder(settings, progress)
    validation = ScenesDataset("validation", size=64)
    psnr = reconstruction_psnr(
        vae, image_tensor([validation[i].image for i in range(len(validation))])
    )
    with replacing_directory(stages / "vae") as directory:
        vae.save_pretrained(str(directory))
    return {"settings": asdict(settings), "validation_psnr": psnr, **progress.summary()}


def _judge(output: Path, settings: JudgeSettings, test_images: int) -> dict[str, Any]:
    progress = _Progress("judge", settings.steps)
    judge = train_judge(settings, progress)
    test = ScenesDataset("test", size=test_images)
    scenes = [test[i] for i in range(len(test))]
    accuracy = attribute_accuracy(judge, [s.image for s in scenes], [s.attributes for s in scenes])
    with replacing_directory(output / "judge") as directory:
        save_judge(judge, directory)
    return {"settings": asdict(settings), "test_accuracy": asdict(accuracy), **progress.summary()}


def _pipeline(output: Path, seed: int) -> dict[str, Any]:
    from diffusers import AutoencoderKL
    from transformers import T5EncoderModel, T5Tokenizer

    stages = output / "stages"
    pipe = assemble_pipeline(
        AutoencoderKL.from_pretrained(stages / "vae"),
        T5EncoderModel.from_pretrained(stages / "text_encoder"),
        T5Tokenizer.from_pretrained(stages / "tokenizer"),
        seed,
    )
    with replacing_directory(output / "pipeline") as directory:
        pipe.save_pretrained(str(directory))
    parts = ("transformer", "vae", "text_encoder")
    return {"parameters": {p: sum(w.numel() for w in getattr(pipe, p).parameters()) for p in parts}}


def _transformer(output: Path, recipe: TrainingRecipe) -> dict[str, Any]:
    run = output / "transformer"
    result = run_recipe(recipe, run)
    _embed(output)
    described = recipe.with_changes(model="").to_json_dict()
    losses = [line["loss"] for line in read_history(run / "history.jsonl")]
    return {"recipe": described, "seconds": round(result.seconds, 1), "losses": _course(losses)}


def _embed(output: Path) -> None:
    from diffusers import PixArtTransformer2DModel

    from diffcr.hosts.loading import load_pipeline

    pipe = load_pipeline(output / "pipeline", "cpu")
    trained = output / "transformer" / "final" / "transformer"
    pipe.transformer = PixArtTransformer2DModel.from_pretrained(trained)
    with replacing_directory(output / "scenes") as directory:
        pipe.save_pretrained(str(directory))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make the embedded default.")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shorten", type=float, default=1.0, help="factor of steps, for a trial")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    arguments = parser.parse_args()
    build(arguments.output, arguments.seed, arguments.shorten, arguments.stages)


if __name__ == "__main__":
    main()
