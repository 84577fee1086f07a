"""GLM-Image: CogView 4's blocks, which may keep keys and values of given pictures
(diffusers/models/transformers/transformer_glm_image.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from diffcr.hosts.cogview import COGVIEW4
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.pipelines.call import PipelineCall


def _refuse_kept_pictures(config: Any, arguments: Mapping[str, Any]) -> str | None:
    """A pipeline without given pictures passes caches, too, which then hold nothing."""
    caches = arguments.get("kv_caches")
    if caches is not None and caches[0].mode in ("write", "read"):
        return "kept keys and values of given pictures (kv_caches) cannot be combined with methods"
    return None


def _refuse_training(config: Any) -> str:
    return (
        "beside a text it is told tokens of the picture (prior_token_id), which a language model "
        "writes for the pipeline and which are not encoded with the data"
    )


GLM_IMAGE = replace(
    COGVIEW4,
    name="glm-image",
    transformer_class=(
        "diffusers.models.transformers.transformer_glm_image.GlmImageTransformer2DModel"
    ),
    timestep=NoiseScale(clean=-1, noisy=999),
    refuse=_refuse_kept_pictures,
    call=PipelineCall(refuse_training=_refuse_training),
)
