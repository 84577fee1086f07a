"""LongCat-Image: FLUX's blocks (diffusers/models/transformers/transformer_longcat_image.py)."""

from __future__ import annotations

from dataclasses import replace

from diffcr.hosts.flux import FLUX
from diffcr.hosts.pipelines.longcat_image import LONGCAT_IMAGE_CALL

LONGCAT_IMAGE = replace(
    FLUX,
    name="longcat-image",
    transformer_class=(
        "diffusers.models.transformers.transformer_longcat_image.LongCatImageTransformer2DModel"
    ),
    call=LONGCAT_IMAGE_CALL,
)
