"""GLM-Image: CogView 4's blocks, which may keep keys and values of given pictures
(diffusers/models/transformers/transformer_glm_image.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from diffcr.hosts.cogview import COGVIEW4
from diffcr.hosts.family import Family
from diffcr.hosts.noise_scale import NoiseScale


def _refuse_kept_pictures(config: Any, arguments: Mapping[str, Any]) -> str | None:
    """A pipeline without given pictures passes caches, too, which then hold nothing."""
    caches = arguments.get("kv_caches")
    if caches is not None and caches[0].mode in ("write", "read"):
        return "kept keys and values of given pictures (kv_caches) cannot be combined with methods"
    return None


GLM_IMAGE = replace(
    COGVIEW4,
    name="glm-image",
    transformer_class=(
        "diffusers.models.transformers.transformer_glm_image.GlmImageTransformer2DModel"
    ),
    timestep=NoiseScale(clean=-1, noisy=999),
    refuse=_refuse_kept_pictures,
    # It looks for the dropped tokens' places, which the meta device has none of.
    blank_inputs=Family.blank_inputs,
)
