"""The embedded default: a small text-to-image pipeline, its compressed form, and the judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffcr.errors import DiffCRError

_HERE = Path(__file__).parent
# Chosen on validation captions: benchmarks/results/pretraining.json.
GUIDANCE_SCALE = 4.0


def default_pipeline_path() -> Path:
    """Directory of the embedded `PixArtSigmaPipeline`, for `from_pretrained`.

    Raises:
        DiffCRError: The weights are not in this installation.
    """
    return _directory("scenes")


def default_checkpoint_path() -> Path:
    """Directory of the embedded DiffCR checkpoint, for `diffcr.load`.

    Raises:
        DiffCRError: The weights are not in this installation.
    """
    return _directory("scenes-diffcr")


def default_inpainting_path() -> Path:
    """Directory of the embedded `LazyInpaintPipeline`'s own models, for
    `load_default_inpainting`: the other ones are those of the text-to-image pipeline.

    Raises:
        DiffCRError: The weights are not in this installation.
    """
    return _directory(
        "inpainting",
        "no inpainting pipeline is embedded in this installation: "
        "give a LazyInpaintPipeline's directory as the model",
    )


def load_default_inpainting(device: str | None = None) -> Any:
    """The embedded `LazyInpaintPipeline`, on a GPU where there is one.

    Raises:
        DiffCRError: The weights are not in this installation.
    """
    from diffcr.inpainting.opening import load_inpainting_pipeline

    path = default_inpainting_path()
    base = load_default_pipeline(device)
    shared = {name: getattr(base, name) for name in ("vae", "text_encoder", "tokenizer")}
    return load_inpainting_pipeline(path, device, **shared)


def load_default_pipeline(device: str | None = None) -> Any:
    """The embedded `PixArtSigmaPipeline`, on a GPU where there is one; `pipe(prompt)` needs no
    further argument.

    Raises:
        DiffCRError: The weights are not in this installation.
    """
    from diffcr.hosts.loading import own_device, read_pipeline
    from diffcr.pretrained.pipeline import PixArtSigmaPipeline

    pipe = read_pipeline(PixArtSigmaPipeline, default_pipeline_path())
    return pipe.to(device or own_device())


def judge_path() -> Path:
    """Directory of the embedded judge, for `diffcr.scenes.judge.load_judge`.

    Raises:
        DiffCRError: The weights are not in this installation.
    """
    return _directory("judge")


def _directory(name: str, missing: str = "") -> Path:
    path = _HERE / name
    if not path.is_dir():
        install = "install a released diffcr or run `make pretrain finetune`"
        raise DiffCRError(missing or f"{path} is missing: {install}")
    return path
