"""Floating-point operations of a pipeline, as the section of a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from statistics import mean
from typing import Any

from diffcr.binding.model import get_attached, is_attached
from diffcr.cost.counting import count_flops
from diffcr.cost.flops import mean_flops
from diffcr.hosts import find_transformer
from diffcr.hosts.input_size import InputSize
from diffcr.hosts.loading import text_tokens
from diffcr.hosts.sampling import OutputSize, latent_size, sampler_levels


def flops_section(
    pipe: Any,
    num_inference_steps: int = 20,
    height: int | None = None,
    width: int | None = None,
    computed: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Operations of one forward of one image, of a single frame for a model of videos, without
    guidance: the paper's unit.

    `compressed` is the mean over the steps of the pipeline's own sampler, `per_region` one step in
    each region. Without DiffCR there is only `dense`.

    Args:
        pipe: Attached or not.
        num_inference_steps: Of its sampler.
        height: Of the image in pixels, the pipeline's own by default.
        width: Of the image in pixels, the pipeline's own by default.
        computed: Share of the steps that each layer computes, [L] in [0, 1], where a step cache
            skips layers and it was measured; `per_region` is of steps that skip none.
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
        compressed = mean_flops([count.dense if r is None else regions[r] for r in visited])
        for layer, share in zip(count.per_layer, computed or (), strict=computed is not None):
            compressed += mean_flops([layer[r] for r in visited if r is not None]) * (share - 1)
        section["compressed"] = asdict(compressed)
        if count.region_names is not None:
            section["region_names"] = list(count.region_names)
            shares = [mean(layer[r] for layer in count.skipped) for r in visited if r is not None]
            section["skipped_mean"] = mean(shares)
    return section
