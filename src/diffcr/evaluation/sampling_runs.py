"""Sampling runs of a few prompts, down to their final latents: what calibration looks at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from inspect import signature, unwrap
from typing import Any

import torch
from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.evaluation.generate import Generation, check_prompts, generators
from diffcr.hosts.sampling import OutputSize, call_options, guidance_options, sampler_levels
from diffcr.validation import require_integer


@dataclass(frozen=True)
class SamplingRuns:
    """Runs of one set of prompts and seeds.

    Attributes:
        pipe: A text-to-image or text-to-video pipeline of diffusers.
        prompts: At least one.
        generation: How they are sampled; prompt i gets the noise of `seed + i`.
        size: Of the pictures or videos.

    Raises:
        DiffCRError: The pipeline makes no pictures of texts, there are no prompts, or the number of
            steps is none.
    """

    pipe: Any
    prompts: Sequence[str]
    generation: Generation
    size: OutputSize

    def __post_init__(self) -> None:
        pipe = type(self.pipe)
        if not hasattr(self.pipe, "scheduler") or "image" in signature(pipe.__call__).parameters:
            raise DiffCRError(f"{pipe.__name__} makes no pictures of texts: give such a pipeline")
        require_integer("num_inference_steps", self.generation.num_inference_steps, 1)
        check_prompts(self.prompts)

    @cached_property
    def levels(self) -> tuple[float, ...]:
        """Noise levels of the steps, in [0, 1]."""
        return tuple(sampler_levels(self.pipe, self.generation.num_inference_steps, self.size))

    def latents(self, bar: Any = None) -> Tensor:
        """Final latents of all prompts, float32 on the CPU; a progress bar moves on by each."""
        found = []
        for start in range(0, len(self.prompts), self.generation.batch_size):
            batch = self.batch(self.pipe, start).detach().float().cpu()
            found.append(batch)
            if bar is not None:
                bar.update(len(batch))
        return torch.cat(found)

    def latents_with_gradients(self) -> Tensor:
        """Final latents of the first batch, which gradients flow back from through the sampler's
        steps: by the pipeline's call beneath its `torch.no_grad`."""
        return self.batch(partial(unwrap(type(self.pipe).__call__), self.pipe), 0)

    def batch(self, sample: Callable[..., Any], start: int) -> Tensor:
        """Final latents of the prompts of a batch as a pipeline's call gives them.

        Args:
            sample: The pipeline, or its call.
            start: Number of the first prompt.
        """
        given = self.generation
        prompts = list(self.prompts[start : start + given.batch_size])
        output = sample(
            prompts,
            generator=generators(given.seed + start, len(prompts)),
            num_inference_steps=given.num_inference_steps,
            output_type="latent",
            **guidance_options(self.pipe, given.guidance_scale, len(prompts)),
            **self.size.arguments(self.pipe),
            **call_options(self.pipe),
        )
        latents: Tensor = output[0]
        return latents
