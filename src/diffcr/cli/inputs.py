"""From what the user typed to prompts, recipes and pipelines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from diffcr.cli.quiet import hide_loading_bars
from diffcr.errors import DiffCRError
from diffcr.files import read_text

if TYPE_CHECKING:
    from diffcr.checkpoint.contenders import Contender
    from diffcr.methods.config import MethodConfig


def read_prompts(prompts: list[str], file: Path | None) -> list[str]:
    """Prompts of the arguments, then those of the file, one a line; blank lines are passed over.

    Raises:
        DiffCRError: There is none, one is blank, or the file is empty or cannot be read.
    """
    texts = [prompt.strip() for prompt in prompts]
    if file is not None:
        written = [line.strip() for line in read_text(file).split("\n") if line.strip()]
        if not written:
            raise DiffCRError(f"prompt file {file} is empty: write one prompt per line")
        texts += written
    if not texts:
        raise DiffCRError("there is no prompt: give one as an argument, or --prompts FILE")
    for number, text in enumerate(texts, 1):
        check_prompt(f"prompt {number}", text)
    return texts


def scene_captions(split: Literal["train", "validation", "test"], size: int) -> list[str]:
    """Captions of the first scenes of a split."""
    from diffcr.scenes import ScenesDataset

    scenes = ScenesDataset(split, size=size)
    return [scenes[i].caption for i in range(size)]


def check_prompt(name: str, text: str) -> None:
    """Raises DiffCRError where a prompt is empty, or was typed in another encoding than UTF-8."""
    if not text.strip():
        raise DiffCRError(f"{name} is empty: give some words")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DiffCRError(f"{name} is not UTF-8: {text!a}") from error


def check_size(pipe: Any, **lengths: int | None) -> None:
    """Raises DiffCRError where a picture of that height or width, in pixels, cannot be made."""
    from diffcr.hosts.loading import size_multiple

    multiple = size_multiple(pipe)
    for name, pixels in lengths.items():
        if pixels is not None and pixels % multiple:
            raise DiffCRError(f"--{name} is {pixels}: give a multiple of {multiple}")


def check_output(directory: Path) -> None:
    """Raises DiffCRError where results cannot be written: before the work, not after."""
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise DiffCRError(f"--output {directory}: {existing} is a file: give a directory")
    if not os.access(existing, os.W_OK):
        raise DiffCRError(f"--output {directory}: {existing} cannot be written to")


def choose_guidance(asked: float | None, model: str) -> float:
    """The guidance scale that was asked for, else the embedded pipeline's or the paper's 4.5."""
    from diffcr.pretrained import GUIDANCE_SCALE

    return asked if asked is not None else 4.5 if model else GUIDANCE_SCALE


def check_file(file: Path, force: bool) -> None:
    """Raises DiffCRError where a file cannot be written, or stands already: before the work."""
    check_output(file.parent)
    if file.is_dir():
        raise DiffCRError(f"--output {file} is a directory: give a file")
    if file.exists() and not force:
        raise DiffCRError(f"{file} exists: give another --output, or --force to overwrite")


def read_contenders(methods: list[str], checkpoint: str, model: str) -> list[Contender]:
    """The methods that were named, then the checkpoint, that of the embedded default by itself.

    Raises:
        DiffCRError: There is none, one is not written as it has to be, or the checkpoint cannot be
            read or cannot fit.
    """
    from diffcr.checkpoint.contenders import checkpoint_contender, parse_contender
    from diffcr.hosts.published import is_published
    from diffcr.pretrained import default_checkpoint_path

    contenders = [parse_contender(method) for method in methods]
    if checkpoint and is_published(model):
        raise DiffCRError(
            f"{model} gets random weights, which no checkpoint belongs to: "
            "give --model a pipeline directory, or --method diffcr:0.3"
        )
    if checkpoint or not model:
        contenders.append(checkpoint_contender(checkpoint or default_checkpoint_path()))
    if not contenders:
        raise DiffCRError("nothing to compare with dense: give --method mod:0.2, or --checkpoint")
    return contenders


def read_method(
    method: str,
    compression_ratio: float | None,
    placement: str | None,
    checkpoint: str,
    model: str,
) -> Contender:
    """The method whose parts were given, together or apart, or the checkpoint: that of the embedded
    default by itself.

    Raises:
        DiffCRError: The arguments exclude each other or do not suffice, or the checkpoint cannot be
            read.
    """
    from diffcr.checkpoint.contenders import checkpoint_contender, parse_contender
    from diffcr.pretrained import default_checkpoint_path

    given = [str(value) for value in (compression_ratio, placement) if value is not None]
    if given and (not method or ":" in method):
        raise DiffCRError(
            "--compression-ratio and --placement belong to a --method that is named without them: "
            "--method mod --compression-ratio 0.2, or --method mod:0.2"
        )
    if given or method not in ("", "diffcr"):
        if checkpoint:
            raise DiffCRError(
                f"--checkpoint and --method {method} exclude each other: give one of them"
            )
        return parse_contender(":".join([method, *given]))
    if model and not checkpoint:
        raise DiffCRError(
            "DiffCR learns its ratios: give --checkpoint, or --method with a ratio, mod:0.2"
        )
    return checkpoint_contender(checkpoint or default_checkpoint_path())


def open_pipeline(model: str, checkpoint: str, dense: bool, method: str = "") -> Any:
    """The pipeline with its DiffCR checkpoint, with a training-free method, or the bare one.

    The checkpoint is read before the pipeline, which takes longer.

    Args:
        model: What the user called the model; the embedded default if nothing.
        checkpoint: Directory or Hub id, or nothing.
        dense: Whether the bare one was asked for.
        method: As `parse_contender` reads it, or nothing; a step cache goes with a checkpoint.

    Raises:
        DiffCRError: The arguments exclude each other, one of them cannot be loaded, or the method
            has to be trained.
    """
    if method == "dense":
        dense, method = True, ""
    config = _training_free(method) if method else None
    beside = bool(checkpoint) and _is_step_cache(config)
    given = [("--dense", dense), ("--checkpoint", checkpoint), ("--method", method)]
    named = [option for option, value in given if value]
    if len(named) > 1 and not beside:
        raise DiffCRError(f"{named[0]} and {named[1]} exclude each other: give one of them")
    if model and not named:
        raise DiffCRError("--model needs --checkpoint or --method with it, or --dense")
    from diffcr.binding.attachment import attach
    from diffcr.checkpoint.loading import load
    from diffcr.checkpoint.stored import read_checkpoint, resolve_checkpoint
    from diffcr.hosts.loading import load_pipeline
    from diffcr.pretrained import default_checkpoint_path, default_pipeline_path

    directory = None
    if not named or checkpoint:
        directory = resolve_checkpoint(checkpoint) if checkpoint else default_checkpoint_path()
        read_checkpoint(directory)
    hide_loading_bars()
    pipe = load_pipeline(model or default_pipeline_path())
    # Of denoising steps: commands show how many pictures are made.
    pipe.set_progress_bar_config(disable=True)
    if directory is not None:
        load(pipe, directory)
    if config is not None:
        attach(pipe, config)
    return pipe


def _is_step_cache(config: MethodConfig | None) -> bool:
    from diffcr.methods.step_caches.config import StepCacheConfig

    return isinstance(config, StepCacheConfig)


def _training_free(method: str) -> MethodConfig:
    from diffcr.checkpoint.contenders import parse_contender

    contender = parse_contender(method)
    config = contender.config
    if contender.left_out:
        raise DiffCRError(f"--method {method} is a control for diffcr bench, and makes no pictures")
    if config.trainable:
        raise DiffCRError(
            f"--method {method} makes no pictures without training: give --checkpoint of a run, "
            "or tome, at-edm or first-block-cache with a value"
        )
    return config


def open_bare_beside(pipe: Any, model: str) -> Any | None:
    """The pipeline without its checkpoint, where that changed host weights; None where
    `diffcr.disabled` gives it."""
    from diffcr.binding.model import changes_dense, is_attached
    from diffcr.hosts import find_transformer

    transformer = find_transformer(pipe)
    if not is_attached(transformer) or not changes_dense(transformer):
        return None
    return open_pipeline(model, "", dense=True)
