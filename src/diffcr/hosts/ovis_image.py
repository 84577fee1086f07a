"""Ovis-Image: FLUX's blocks (diffusers/models/transformers/transformer_ovis_image.py)."""

from __future__ import annotations

from dataclasses import replace

from diffcr.hosts.flux import FLUX
from diffcr.hosts.pipelines.ovis_image import OVIS_IMAGE_CALL

OVIS_IMAGE = replace(
    FLUX,
    name="ovis-image",
    transformer_class=(
        "diffusers.models.transformers.transformer_ovis_image.OvisImageTransformer2DModel"
    ),
    call=OVIS_IMAGE_CALL,
)
