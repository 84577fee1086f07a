"""A pipeline is called exactly as before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from diffcr.binding.attachment import attach, detach
from diffcr.binding.model import get_compressor
from diffcr.core.regions import region_of
from diffcr.methods.base import TransformerCall
from diffcr.methods.diffcr.config import DiffCRConfig
from tests.hosts import scramble
from tests.pipelines import tiny_pixart_pipeline

pytestmark = pytest.mark.filterwarnings("ignore::diffcr.errors.DiffCRWarning")


def _generate(pipe: Any, prompts: Any = ("a red circle", "a blue star"), **options: Any) -> Any:
    options = {"num_inference_steps": 4, "height": 32, "width": 32, **options}
    count = len(prompts) * options.get("num_images_per_prompt", 1)
    return pipe(
        list(prompts),
        generator=[torch.Generator().manual_seed(i) for i in range(count)],
        use_resolution_binning=False,
        clean_caption=False,
        max_sequence_length=48,
        output_type="np",
        **options,
    ).images


def test_images_are_the_bare_pipelines_bit_for_bit_before_training_and_after_detach() -> None:
    pipe = tiny_pixart_pipeline()
    bare = _generate(pipe)
    compressor = attach(pipe)
    assert np.array_equal(_generate(pipe), bare)
    scramble(compressor)
    assert not np.array_equal(_generate(pipe), bare)
    detach(pipe)
    assert np.array_equal(_generate(pipe), bare)


def test_images_per_prompt_and_changing_sizes() -> None:
    pipe = tiny_pixart_pipeline()
    scramble(attach(pipe))
    assert _generate(pipe, num_images_per_prompt=3).shape == (6, 32, 32, 3)
    first = _generate(pipe)
    assert _generate(pipe, height=64, width=32).shape == (2, 64, 32, 3)
    assert np.array_equal(_generate(pipe), first)
    assert _generate(pipe, guidance_scale=1.0).shape == (2, 32, 32, 3)


def test_every_denoising_step_uses_its_timesteps_region() -> None:
    pipe = tiny_pixart_pipeline()
    compressor = attach(pipe, DiffCRConfig(timestep_regions=4))
    scramble(compressor)
    seen: list[tuple[float, tuple[int, ...]]] = []
    build = compressor.build_context

    def spy(call: TransformerCall) -> Any:
        context = build(call)
        (only,) = context.regions
        assert call.noise_levels is not None
        seen.append((call.noise_levels[0], tuple(plan.kept_tokens for plan in only.layers)))
        return context

    compressor.build_context = spy  # type: ignore[method-assign, assignment]
    _generate(pipe, num_inference_steps=8)
    kept = compressor.kept_tokens(16)
    assert len(seen) == 8
    for level, used in seen:
        assert used == tuple(row[region_of(level, 4)] for row in kept)
    assert len({region_of(level, 4) for level, _ in seen}) == 4


def test_separate_guidance_passes_equal_a_doubled_batch() -> None:
    pipe = tiny_pixart_pipeline()
    scramble(attach(pipe))
    transformer = pipe.transformer
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    embeds = torch.randn(2, 7, 32, generator=generator)

    def denoise(rows: slice) -> torch.Tensor:
        count = len(latents[rows])
        with torch.no_grad():
            output: torch.Tensor = transformer(
                latents[rows],
                encoder_hidden_states=embeds[rows],
                timestep=torch.full((count,), 400),
                added_cond_kwargs={"resolution": None, "aspect_ratio": None},
                return_dict=False,
            )[0]
        return output

    together = denoise(slice(0, 2))
    apart = torch.cat([denoise(slice(0, 1)), denoise(slice(1, 2))])
    assert (together - apart).abs().max() < 1e-5


def test_half_precision_generates() -> None:
    pipe = tiny_pixart_pipeline().to(torch.bfloat16)
    scramble(attach(pipe))
    images = _generate(pipe)
    assert np.isfinite(images).all()
    assert get_compressor(pipe).ratios.dtype == torch.float32
