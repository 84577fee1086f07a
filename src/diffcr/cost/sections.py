"""Floating-point operations of a pipeline, as the section of a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from diffcr.binding.model import is_attached
from diffcr.core.regions import TIMESTEPS, region_of
from diffcr.cost.counting import count_flops
from diffcr.cost.flops import mean_flops
from diffcr.hosts import find_transformer
from diffcr.hosts.family import InputSize
from diffcr.hosts.loading import text_tokens


def flops_section(
    pipe: Any,
    num_inference_steps: int = 20,
    height: int | None = None,
    width: int | None = None,
) -> dict[str, Any]:
    """Operations of one forward of one image without guidance, the paper's unit.

    `compressed` is the mean over the steps of the pipeline's own sampler, `per_region` one step in
    each region. Without DiffCR there is only `dense`.
    """
    transformer = find_transformer(pipe)
    scale = pipe.vae_scale_factor
    rows, columns = (size // scale if size else None for size in (height, width))
    count = count_flops(transformer, InputSize(text_tokens(pipe), rows, columns))
    section: dict[str, Any] = {
        "image_tokens": count.image_tokens,
        "text_tokens": count.text_tokens,
        "dense": asdict(count.dense),
    }
    if is_attached(transformer):
        regions = count.per_region
        visited = sampler_regions(pipe, num_inference_steps, len(regions))
        section["per_region"] = [asdict(region) for region in regions]
        section["compressed"] = asdict(mean_flops([regions[region] for region in visited]))
    return section


def sampler_regions(pipe: Any, num_inference_steps: int, regions: int) -> Sequence[int]:
    """Region of every step of the pipeline's sampler."""
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    scheduler.set_timesteps(num_inference_steps)
    return [region_of(float(t) / TIMESTEPS, regions) for t in scheduler.timesteps]
