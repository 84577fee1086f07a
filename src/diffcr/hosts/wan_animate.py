"""Wan Animate: Wan's blocks (diffusers/models/transformers/transformer_wan_animate.py)."""

from __future__ import annotations

from dataclasses import replace

from diffcr.hosts.pipelines.call import PipelineCall
from diffcr.hosts.wan import WAN

WAN_ANIMATE = replace(
    WAN,
    name="wan-animate",
    transformer_class=(
        "diffusers.models.transformers.transformer_wan_animate.WanAnimateTransformer3DModel"
    ),
    call=PipelineCall(
        refuse_training=lambda config: (
            "it is given a reference picture and videos of a pose and a face"
        ),
        video=True,
    ),
)
