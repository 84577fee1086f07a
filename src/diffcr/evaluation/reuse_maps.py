"""What reuse computes at every denoising step: the age of each token as a map over the picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from diffcr.binding.model import get_reuser
from diffcr.evaluation.generate import generate_images
from diffcr.evaluation.router_maps import token_grid
from diffcr.hosts import find_transformer
from diffcr.hosts.host import host_blocks


@dataclass(frozen=True)
class ReuseMaps:
    """Maps of one picture at all denoising steps.

    Attributes:
        caption: What the picture was painted from.
        noise_levels: [S] in [0, 1], noisiest first.
        ages: [S, h, w] int64, denoising steps since a token was computed; 0 at the step itself.
        image: The picture, RGB.
    """

    caption: str
    noise_levels: tuple[float, ...]
    ages: NDArray[np.int64]
    image: Image.Image

    def computed_shares(self) -> list[float]:
        """Share of the tokens that each step computes."""
        return [float((ages == 0).mean()) for ages in self.ages]


@dataclass(frozen=True)
class ReusedCall:
    """One call of the transformer.

    Attributes:
        noise_level: In [0, 1].
        computed: [N] bool, the tokens that were computed, of the last sample.
    """

    noise_level: float
    computed: Tensor


@contextmanager
def recording_reuse(pipe_or_transformer: Any) -> Iterator[list[ReusedCall]]:
    """Within the context every call of the transformer under reuse adds a `ReusedCall`.

    Of a batch the last sample is recorded; under guidance both halves compute the same tokens.

    Raises:
        DiffCRError: What is attached keeps nothing from step to step.
    """
    transformer = find_transformer(pipe_or_transformer)
    reuser = get_reuser(transformer)
    calls: list[ReusedCall] = []

    def look(block: nn.Module, args: Any, output: Any) -> None:
        reused, call = reuser.context, reuser.call
        computed = torch.full((call.tokens,), not reused.skips)
        if reused.kept is not None:
            computed[:] = False
            computed[reused.kept.indices[-1].cpu()] = True
        assert call.noise_levels is not None
        calls.append(ReusedCall(call.noise_levels[-1], computed))

    last = host_blocks(transformer)[-1].module
    handle = last.register_forward_hook(look)
    try:
        yield calls
    finally:
        handle.remove()


def reuse_maps(pipe: Any, prompt: str, **generation: Any) -> ReuseMaps:
    """Maps while a picture is generated.

    Args:
        pipe: A text-to-image pipeline with `ReuseConfig` attached.
        prompt: Of the picture.
        generation: Other arguments of `generate_images`: seed, steps, guidance, size.

    Raises:
        DiffCRError: What is attached keeps nothing from step to step.
    """
    with recording_reuse(pipe) as calls:
        image = generate_images(pipe, [prompt], **generation)[0]
    # With guidance some pipelines call twice a step.
    steps = [next(same) for _, same in groupby(calls, key=lambda call: call.noise_level)]
    ages = np.stack(list(_ages(steps)))
    grid = token_grid(ages.shape[-1], image)
    levels = tuple(step.noise_level for step in steps)
    return ReuseMaps(prompt, levels, ages.reshape(len(steps), *grid), image)


def _ages(steps: Sequence[ReusedCall]) -> Iterator[NDArray[np.int64]]:
    age = np.zeros(len(steps[0].computed), dtype=np.int64)
    for step in steps:
        age = np.where(step.computed.numpy(), 0, age + 1)
        yield age
