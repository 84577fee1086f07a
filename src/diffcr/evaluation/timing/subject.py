"""The bare model that methods are timed on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffcr.errors import DiffCRError
from diffcr.evaluation.timing.memory import free_memory
from diffcr.hosts.input_size import InputSize
from diffcr.hosts.loading import load_pipeline, own_device, text_tokens
from diffcr.hosts.published import (
    is_published,
    make_transformer,
    published_input,
    transformer_config,
)
from diffcr.pretrained import default_pipeline_path
from diffcr.validation import require_choice

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WEIGHTS_SEED = 0


@dataclass(frozen=True)
class Subject:
    """A bare transformer in eval mode, without gradients, and the size of its inputs.

    Attributes:
        name: Of a published model, else of its directory.
        transformer: On its device, in its dtype.
        text_tokens: Tokens of a prompt.
        side: Of the latents, rows and columns.
        random_weights: Whether it is a published size without its weights.
        frames: Of the latents.
    """

    name: str
    transformer: nn.Module
    text_tokens: int
    side: int
    random_weights: bool
    frames: int = 1

    @property
    def size(self) -> InputSize:
        """Of a sample's inputs."""
        return InputSize(self.text_tokens, self.side, self.side, self.frames)

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return next(self.transformer.parameters()).device


def open_subject(
    model: str,
    resolution: int | None = None,
    dtype: str = "float32",
    device: str = "",
    tiny: bool = False,
) -> Subject:
    """A model to time.

    Args:
        model: Name of a published model, which gets random weights and prompts as long as its
            pipeline pads them, or a pipeline directory; the embedded default where it is empty.
        resolution: In pixels, of a side; the model's own by default, which PixArt has several of.
        dtype: "float32" or "bfloat16".
        device: Of torch; a GPU where there is one by default.
        tiny: A published model with few and narrow layers, for a trial.

    Raises:
        DiffCRError: There is no such model, resolution or dtype, they do not fit each other, or the
            device has no memory for the weights.
    """
    require_choice("dtype", dtype, tuple(DTYPES))
    directory, device = model or str(default_pipeline_path()), device or own_device()
    config = transformer_config(directory, resolution, tiny)
    if is_published(directory):
        size = published_input(directory, resolution, tiny=tiny)
        transformer = _published(directory, config, DTYPES[dtype], torch.device(device))
        name, side = directory + ", tiny" * tiny, size.rows
    elif tiny:
        raise DiffCRError(f"{directory} is not a published model: --tiny makes small ones of those")
    else:
        # The text encoder of a large model would take the room that is to be measured.
        pipe = load_pipeline(directory, "cpu")
        transformer, size = pipe.transformer, InputSize(text_tokens(pipe))
        # diffusers' own `to` warns of any cast, also where no module has to stay in float32.
        nn.Module.to(transformer, device, DTYPES[dtype])
        # A record says nothing of its maker's disk.
        name, side = Path(directory).name, config["sample_size"]
    transformer.eval().requires_grad_(False)
    assert side is not None
    return Subject(name, transformer, size.text_tokens, side, is_published(directory), size.frames)


def _published(model: str, config: dict[str, Any], dtype: torch.dtype, device: torch.device) -> Any:
    with torch.device("meta"):
        parameters = sum(p.numel() for p in make_transformer(config).parameters())
    needed, free = parameters * dtype.itemsize, free_memory(device)
    if free is not None and needed > free:
        raise DiffCRError(
            f"{model} takes {needed / 1e9:.1f} GB for its weights alone ({parameters / 1e9:.2f} "
            f"billion in {str(dtype).removeprefix('torch.')}), and {free / 1e9:.1f} GB are free on "
            f"{device}: choose a smaller model, or --tiny for a trial"
        )
    torch.manual_seed(WEIGHTS_SEED)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        # Made as they are to be: in float32 a large model would not fit before the cast.
        with device:
            transformer = make_transformer(config)
    finally:
        torch.set_default_dtype(usual)
    return nn.Module.to(transformer, dtype=dtype)
