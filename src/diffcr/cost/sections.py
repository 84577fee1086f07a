"""Floating-point operations of a pipeline, as the section of a record."""

from __future__ import annotations

from dataclasses import asdict
from statistics import mean
from typing import Any

from diffcr.binding.model import get_attached, is_attached
from diffcr.cost.counting import count_flops
from diffcr.cost.flops import mean_flops
from diffcr.hosts import find_transformer
from diffcr.hosts.family import InputSize
from diffcr.hosts.loading import text_tokens
from diffcr.hosts.sampling import OutputSize, latent_size, sampler_levels


def flops_section(
    pipe: Any,
    num_inference_steps: int = 20,
    height: int | None = None,
    width: int | None = None,
) -> dict[str, Any]:
    """Operations of one forward of one image, of a single frame for a model of videos, without
    guidance: the paper's unit.

    `compressed` is the mean over the steps of the pipeline's own sampler, `per_region` one step in
    each region. Without DiffCR there is only `dense`.
    """
    transformer = find_transformer(pipe)
    latents = latent_size(pipe, height, width)
    count = count_flops(transformer, InputSize(text_tokens(pipe), latents.rows, latents.columns))
    section: dict[str, Any] = {
        "image_tokens": count.image_tokens,
        "text_tokens": count.text_tokens,
        "dense": asdict(count.dense),
    }
    if is_attached(transformer):
        regions = count.per_region
        visited = get_attached(transformer).visited_regions(
            sampler_levels(pipe, num_inference_steps, OutputSize(height, width, frames=1))
        )
        section["per_region"] = [asdict(region) for region in regions]
        section["compressed"] = asdict(
            mean_flops([count.dense if r is None else regions[r] for r in visited])
        )
        if count.region_names is not None:
            section["region_names"] = list(count.region_names)
            shares = [mean(layer[r] for layer in count.skipped) for r in visited if r is not None]
            section["skipped_mean"] = mean(shares)
    return section
