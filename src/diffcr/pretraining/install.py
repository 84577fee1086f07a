"""Embed what was made: `python -m diffcr.pretraining.install --build DIR`, or `--checkpoint DIR`,
or `--inpainting DIR`.

A build brings pipeline and judge. The embedded DiffCR checkpoint and the inpainting models belong
to the pipeline before, so they go; `--checkpoint` embeds the one that was fine-tuned on what is
there. `--inpainting` embeds the two models of a `LazyInpaintPipeline` whose other models are the
embedded pipeline's.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch

from diffcr import pretrained
from diffcr.checkpoint.stored import CONFIG_FILE, WEIGHTS_FILE, list_files, read_checkpoint
from diffcr.errors import DiffCRError
from diffcr.files import read_json, replacing_directory, save_tensors, write_json
from diffcr.hosts.loading import load_pipeline
from diffcr.inpainting.opening import load_inpainting_pipeline

_CHECKPOINT = "scenes-diffcr"
_INPAINTING = "inpainting"


def install_build(build: Path, package: Path) -> None:
    """Put a build's pipeline and judge in the place of the embedded ones, in `package`.

    Raises:
        DiffCRError: The build is not complete.
    """
    for name in ("scenes", "judge"):
        if not (build / name).is_dir():
            raise DiffCRError(f"{build / name} is missing: build it first")
    for name in ("scenes", "judge"):
        with replacing_directory(package / name) as directory:
            shutil.copytree(build / name, directory, dirs_exist_ok=True)
    for name in (_CHECKPOINT, _INPAINTING):
        shutil.rmtree(package / name, ignore_errors=True)


def install_checkpoint(checkpoint: Path, package: Path) -> None:
    """Put a checkpoint in the place of the embedded one, in `package`.

    Host weights are stored in float16, half the size; loading casts them back.

    Raises:
        DiffCRError: It is not a checkpoint.
    """
    weights = read_checkpoint(checkpoint).weights
    with replacing_directory(package / _CHECKPOINT) as directory:
        shutil.copytree(checkpoint, directory, dirs_exist_ok=True)
        if weights:
            halves = {name: weight.half() for name, weight in weights.items()}
            save_tensors(directory / WEIGHTS_FILE, halves)
            description = read_json(directory / CONFIG_FILE)
            files = list_files(directory)
            write_json(directory / CONFIG_FILE, {**description, "files": files})


def install_inpainting(pipeline: Path, package: Path) -> None:
    """Put a `LazyInpaintPipeline`'s decoder and encoder in the place of the embedded ones.

    They are stored in float16, half the size; the caller's default dtype is what they open in.

    Raises:
        DiffCRError: It is not such a pipeline, or its other models are not the embedded ones.
    """
    pipe = load_inpainting_pipeline(pipeline, "cpu")
    embedded = load_pipeline(package / "scenes", "cpu")
    for name in ("vae", "text_encoder"):
        weights = zip(
            getattr(pipe, name).parameters(), getattr(embedded, name).parameters(), strict=True
        )
        if not all(torch.equal(own, theirs) for own, theirs in weights):
            raise DiffCRError(
                f"{pipeline} was trained with another {name} than the embedded one: train it anew"
            )
    with replacing_directory(package / _INPAINTING) as directory:
        pipe.save_config(str(directory))
        pipe.scheduler.save_pretrained(str(directory / "scheduler"))
        for name in ("transformer", "encoder"):
            getattr(pipe, name).half().save_pretrained(str(directory / name))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Embed a build or a checkpoint in the package.")
    parser.add_argument("--build", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--inpainting", type=Path)
    arguments = parser.parse_args()
    package = Path(pretrained.__file__).parent
    if arguments.build:
        install_build(arguments.build, package)
    if arguments.checkpoint:
        install_checkpoint(arguments.checkpoint, package)
    if arguments.inpainting:
        install_inpainting(arguments.inpainting, package)


if __name__ == "__main__":
    main()
