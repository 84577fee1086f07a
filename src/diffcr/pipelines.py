"""Opening a pipeline that the caller names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffcr.errors import DiffCRError


def load_pipeline(model: str | Path, device: str | None = None) -> Any:
    """A diffusers pipeline from a directory or a Hub id.

    Args:
        model: What `DiffusionPipeline.from_pretrained` takes.
        device: Where to; a GPU where there is one by default.

    Raises:
        DiffCRError: There is no such pipeline, or it cannot be read.
    """
    import torch
    from diffusers import DiffusionPipeline

    name = str(model)
    is_id = isinstance(model, str) and name.count("/") == 1 and name[0] not in "./~"
    if not is_id and not Path(model).is_dir():
        raise DiffCRError(f"{name} is not a directory: give a pipeline directory or a Hub id")
    try:
        # Without it diffusers falls back to unpickling where there is no safetensors file.
        pipe = DiffusionPipeline.from_pretrained(model, use_safetensors=True)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DiffCRError(f"no pipeline can be loaded from {name}: {reason}") from error
    return pipe.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
