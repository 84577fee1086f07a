"""Wan VACE (diffusers/models/transformers/transformer_wan_vace.py).

Its blocks that give hints to others stay dense: a token without a hint would be another.
"""

from __future__ import annotations

from dataclasses import replace

from diffcr.hosts.pipelines.wan_vace import WAN_VACE_CALL
from diffcr.hosts.wan import WAN

WAN_VACE = replace(
    WAN,
    name="wan-vace",
    transformer_class=(
        "diffusers.models.transformers.transformer_wan_vace.WanVACETransformer3DModel"
    ),
    call=WAN_VACE_CALL,
)
