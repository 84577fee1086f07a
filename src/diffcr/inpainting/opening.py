"""Opening an inpainting pipeline's directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffcr.errors import DiffCRError
from diffcr.files import read_json
from diffcr.hosts.loading import own_device, read_pipeline
from diffcr.inpainting.pipeline import LazyInpaintPipeline


def load_inpainting_pipeline(
    model: str | Path, device: str | None = None, **components: Any
) -> LazyInpaintPipeline:
    """A pipeline that `LazyInpaintPipeline.save_pretrained` wrote.

    Args:
        model: Its directory.
        device: Where to; a GPU where there is one by default.
        components: Models that are opened already, by their names in the pipeline: they take the
            place of the directory's.

    Raises:
        DiffCRError: There is no such pipeline, or it cannot be read.
    """
    directory = Path(model)
    if not (directory / "model_index.json").is_file():
        raise DiffCRError(f"{directory} is not a pipeline: give a LazyInpaintPipeline's directory")
    kind = read_json(directory / "model_index.json").get("_class_name")
    if kind != LazyInpaintPipeline.__name__:
        raise DiffCRError(f"{directory} holds a {kind}: give a LazyInpaintPipeline's directory")
    pipe: LazyInpaintPipeline = read_pipeline(LazyInpaintPipeline, directory, **components)
    pipe.to(device or own_device())
    return pipe
