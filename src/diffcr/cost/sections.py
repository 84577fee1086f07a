"""Floating-point operations of a pipeline, as the section of a record."""

from __future__ import annotations

from dataclasses import asdict
from statistics import mean
from typing import Any

from diffcr.binding.model import get_attached, is_attached
from diffcr.cost.counting import count_flops
from diffcr.cost.flops import mean_flops
from diffcr.hosts import family_of, find_transformer
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
        visited = get_attached(transformer).visited_regions(
            sampler_levels(pipe, num_inference_steps)
        )
        section["per_region"] = [asdict(region) for region in regions]
        section["compressed"] = asdict(mean_flops([regions[region] for region in visited]))
        if count.region_names is not None:
            section["region_names"] = list(count.region_names)
            shares = [mean(layer[region] for layer in count.skipped) for region in visited]
            section["skipped_mean"] = mean(shares)
    return section


def sampler_levels(pipe: Any, num_inference_steps: int) -> list[float]:
    """Noise levels, in [0, 1], of the steps of the pipeline's sampler."""
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    scheduler.set_timesteps(num_inference_steps)
    transformer: Any = find_transformer(pipe)
    scale = family_of(transformer).noise_scale(transformer.config)
    assert scale is not None
    return scale.levels(scheduler.timesteps)
