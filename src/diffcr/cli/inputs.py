"""From what the user typed to prompts, recipes and pipelines."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffcr.errors import DiffCRError


def read_prompts(prompts: list[str], file: Path | None) -> list[str]:
    """Prompts of the arguments, then those of the file, one a line; blank lines are passed over.

    Raises:
        DiffCRError: There is none, one is blank, or the file is empty or cannot be read.
    """
    texts = [prompt.strip() for prompt in prompts]
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DiffCRError(f"prompt file {file} cannot be read: {error}") from error
        written = [line.strip() for line in lines if line.strip()]
        if not written:
            raise DiffCRError(f"prompt file {file} is empty: write one prompt per line")
        texts += written
    if not texts:
        raise DiffCRError("there is no prompt: give one as an argument, or --prompts FILE")
    if not all(texts):
        raise DiffCRError(f"prompt {texts.index('') + 1} is empty: give some words")
    return texts


def check_size(pipe: Any, **lengths: int | None) -> None:
    """Raises DiffCRError where a picture of that height or width, in pixels, cannot be made."""
    from diffcr.pipelines import size_multiple

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


@dataclass(frozen=True)
class ChosenBins:
    """A method and its table of compression ratios in tenths, [L][R]; None for the dense model."""

    method: str
    bins: list[list[int]] | None


def choose_bins(
    method: str, compression_ratio: float | None, checkpoint: str, model: str, layers: int
) -> ChosenBins:
    """What a method skips in each layer; a checkpoint's table where no method is named.

    Raises:
        DiffCRError: The arguments exclude each other, or the checkpoint is another model's.
    """
    from diffcr.config import MoDConfig
    from diffcr.core.ratios import bounded, snap_bins
    from diffcr.io import read_checkpoint, resolve_checkpoint
    from diffcr.pretrained import default_checkpoint_path

    if method not in ("", "dense", "mod", "diffcr"):
        raise DiffCRError(f"--method is {method!r}: choose from dense, mod, diffcr")
    if (method == "mod") != (compression_ratio is not None):
        raise DiffCRError("--method mod and --compression-ratio belong together: give both or none")
    if checkpoint and method in ("dense", "mod"):
        raise DiffCRError(
            f"--checkpoint and --method {method} exclude each other: give one of them"
        )
    if method == "dense":
        return ChosenBins(method, None)
    if compression_ratio is not None:
        tenths = round(10 * MoDConfig(compression_ratio).compression_ratio)
        return ChosenBins(method, [[tenths]] * layers)
    if model and not checkpoint:
        raise DiffCRError("DiffCR learns its ratios: give --checkpoint, or --method mod or dense")
    directory = resolve_checkpoint(checkpoint) if checkpoint else default_checkpoint_path()
    stored = read_checkpoint(directory)
    config, ratios = stored.config, stored.state.get("ratios")
    if ratios is None:
        raise DiffCRError(f"{directory} is damaged (it holds no ratios): copy it again")
    if len(ratios) != layers:
        raise DiffCRError(
            f"{directory} has ratios of {len(ratios)} layers, the model has {layers}: "
            "give the model that it was trained on"
        )
    table = bounded(ratios, config.max_compression_ratio).tolist()
    return ChosenBins(config.method, snap_bins(table, config.max_bin))


def open_pipeline(model: str, checkpoint: str, dense: bool) -> Any:
    """The pipeline with its DiffCR checkpoint, or the bare one.

    The checkpoint is read before the pipeline, which takes longer.

    Raises:
        DiffCRError: The arguments exclude each other, or one of the two cannot be loaded.
    """
    if dense and checkpoint:
        raise DiffCRError("--dense and --checkpoint exclude each other: give one of them")
    if model and not dense and not checkpoint:
        raise DiffCRError("--model needs --checkpoint with it, or --dense")
    from diffcr.io import load, read_checkpoint, resolve_checkpoint
    from diffcr.pipelines import load_pipeline
    from diffcr.pretrained import default_checkpoint_path, default_pipeline_path

    directory = None
    if not dense:
        directory = resolve_checkpoint(checkpoint) if checkpoint else default_checkpoint_path()
        read_checkpoint(directory)
    pipe = load_pipeline(model or default_pipeline_path())
    if directory is not None:
        load(pipe, directory)
    return pipe


def open_bare_beside(pipe: Any, model: str) -> Any | None:
    """The pipeline without its checkpoint, where that changed host weights; None where
    `diffcr.disabled` gives the same."""
    from diffcr.attachment import find_transformer, get_compressor, is_attached

    transformer = find_transformer(pipe)
    if not is_attached(transformer) or not get_compressor(pipe).base.have_changed(transformer):
        return None
    return open_pipeline(model, "", dense=True)
