"""Seconds of the denoiser and of the whole pipeline, dense and compressed in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from diffcr.binding.model import get_attached
from diffcr.core.regions import TIMESTEPS
from diffcr.evaluation.generate import generate_images
from diffcr.evaluation.modes import evaluating, without_adapters
from diffcr.evaluation.timing.latency import LatencyRatio, Timing, compare_latency
from diffcr.hosts import family_of, find_transformer
from diffcr.hosts.loading import text_tokens
from diffcr.hosts.pipelines.prompt import Prompt
from diffcr.hosts.sampling import latent_size

INPUTS_SEED = 0


def denoiser_latency(
    pipe: Any,
    batch_size: int = 16,
    height: int | None = None,
    width: int | None = None,
    repeats: int = 15,
    warmup: int = 2,
) -> LatencyRatio:
    """Seconds of one forward of an attached transformer, mean over its timestep regions.

    A LoRA is left out of both sides: merged into its layers it costs nothing.

    Args:
        pipe: An attached text-to-image pipeline.
        batch_size: Samples of a forward; with guidance, twice the images.
        height: Of the pictures in pixels, the pipeline's own by default.
        width: Of the pictures in pixels, the pipeline's own by default.
        repeats: Pairs of samples; more where they scatter, as `compare_latency` has it.
        warmup: Pairs before the first sample.
    """
    transformer = find_transformer(pipe)
    regions = get_attached(pipe).timestep_regions
    sweep = sweep_regions(pipe, batch_size, regions, height, width)
    with evaluating(transformer), without_adapters(transformer):
        timed = compare_latency(
            _dense(pipe, sweep), sweep, repeats, warmup, next(transformer.parameters()).device
        )
    parts = {name: _divide(timing, regions) for name, timing in vars(timed).items()}
    return LatencyRatio(**parts)


def sweep_regions(
    pipe: Any,
    batch_size: int,
    regions: int,
    height: int | None = None,
    width: int | None = None,
) -> Callable[[], None]:
    """A call that runs one forward of `batch_size` random samples in the middle of every region."""
    transformer: Any = find_transformer(pipe)
    size = latent_size(pipe, height, width)
    timesteps = [int((region + 0.5) * TIMESTEPS / regions) for region in range(regions)]
    inputs = forward_inputs(
        transformer, batch_size, size.rows, size.columns, text_tokens(pipe), timesteps
    )

    @torch.no_grad()
    def sweep() -> None:
        for arguments in inputs.values():
            transformer(**arguments)

    return sweep


def forward_inputs(
    transformer: Any,
    batch_size: int,
    rows: int,
    columns: int,
    text_tokens: int,
    timesteps: Sequence[int],
    frames: int = 1,
) -> dict[int, dict[str, Any]]:
    """Arguments of a transformer's forward by timestep: the same random samples at each.

    Args:
        transformer: Bare or attached; the inputs get its device and dtype.
        batch_size: Samples.
        rows: Height of the latents, not of the pictures.
        columns: Width of the latents.
        text_tokens: Tokens of a prompt.
        timesteps: Noise levels, 0 to 999, in any order.
        frames: Of the latents.
    """
    config, weights = transformer.config, next(transformer.parameters())
    family = family_of(transformer)
    generator = torch.Generator().manual_seed(INPUTS_SEED)
    shape = (batch_size, *family.call.latent_shape(config, rows, columns, frames))
    latents = torch.randn(shape, generator=generator).to(weights)
    blank = family.call.blank_prompt(config, text_tokens).tensors()
    prompt = Prompt.of_tensors({n: _random(t, batch_size, generator) for n, t in blank.items()})
    prompt = prompt.to(weights.device, weights.dtype)
    return {
        timestep: family.call.inputs(
            transformer,
            latents,
            family.denoising_scale(config).values(
                torch.full((batch_size,), timestep, device=weights.device)
            ),
            prompt,
        )
        for timestep in timesteps
    }


def _random(blank: Tensor, batch_size: int, generator: torch.Generator) -> Tensor:
    """Samples of what a blank prompt holds: normals, and whole numbers as they are."""
    if not blank.is_floating_point():
        return blank.expand(batch_size, *blank.shape[1:])
    return torch.randn(batch_size, *blank.shape[1:], generator=generator)


def _dense(pipe: Any, call: Callable[[], Any]) -> Callable[[], Any]:
    # `diffcr.disabled` also walks over all modules for adapters, which would be timed.
    attached = get_attached(pipe)

    def dense() -> Any:
        attached.enabled = False
        try:
            return call()
        finally:
            attached.enabled = True

    return dense


def _divide(timing: Timing, parts: int) -> Timing:
    return Timing(tuple(sample / parts for sample in timing.samples))


def pipeline_latency(
    pipe: Any, prompts: Sequence[str], repeats: int = 5, warmup: int = 1, **generation: Any
) -> LatencyRatio:
    """Seconds of one call of the whole pipeline: prompts to pictures, all in one batch.

    A LoRA is left out of both sides: merged into its layers it costs nothing.

    Args:
        pipe: An attached text-to-image pipeline.
        prompts: At least one.
        repeats: Pairs of samples; more where they scatter, as `compare_latency` has it.
        warmup: Pairs before the first sample.
        generation: Arguments of `generate_images`: steps, guidance, size.
    """
    transformer = find_transformer(pipe)

    def generate() -> None:
        generate_images(pipe, prompts, batch_size=len(prompts), **generation)

    with without_adapters(transformer):
        device = next(transformer.parameters()).device
        return compare_latency(_dense(pipe, generate), generate, repeats, warmup, device)
