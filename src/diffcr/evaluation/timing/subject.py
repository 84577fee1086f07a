"""The bare model that methods are timed on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffcr.hosts.family import InputSize
from diffcr.hosts.loading import load_pipeline, own_device, text_tokens
from diffcr.hosts.published import is_published, make_transformer, transformer_config
from diffcr.pretrained import default_pipeline_path
from diffcr.validation import require_choice

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PAPERS_TEXT_TOKENS = 120
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
    """

    name: str
    transformer: nn.Module
    text_tokens: int
    side: int
    random_weights: bool

    @property
    def size(self) -> InputSize:
        """Of a sample's inputs."""
        return InputSize(self.text_tokens, self.side, self.side)

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return next(self.transformer.parameters()).device


def open_subject(model: str, resolution: int | None = None, dtype: str = "float32") -> Subject:
    """A model to time, on a GPU where there is one.

    Args:
        model: Name of a published model, which gets random weights and prompts of 120 tokens, or a
            pipeline directory; the embedded default where it is empty.
        resolution: In pixels, of a side; needed for a published model, else the pipeline's own.
        dtype: "float32" or "bfloat16".

    Raises:
        DiffCRError: There is no such model, resolution or dtype, or they do not fit each other.
    """
    require_choice("dtype", dtype, tuple(DTYPES))
    directory = model or str(default_pipeline_path())
    config = transformer_config(directory, resolution)
    random_weights = is_published(directory)
    if random_weights:
        transformer, tokens = _published(config), PAPERS_TEXT_TOKENS
    else:
        # The text encoder of a large model would take the room that is to be measured.
        pipe = load_pipeline(directory, "cpu")
        transformer, tokens = pipe.transformer, text_tokens(pipe)
    # diffusers' own `to` warns of any cast, also where no module has to stay in float32.
    nn.Module.to(transformer, own_device(), DTYPES[dtype])
    transformer.eval().requires_grad_(False)
    # A record says nothing of its maker's disk.
    name = directory if random_weights else Path(directory).name
    return Subject(name, transformer, tokens, config["sample_size"], random_weights)


def _published(config: dict[str, Any]) -> Any:
    torch.manual_seed(WEIGHTS_SEED)
    with torch.device(own_device()):
        return make_transformer(config)
