"""ChronoEdit: Wan's blocks (diffusers/models/transformers/transformer_chronoedit.py)."""

from __future__ import annotations

from dataclasses import replace

from diffcr.hosts.pipelines.call import PipelineCall
from diffcr.hosts.wan import WAN

CHRONO_EDIT = replace(
    WAN,
    name="chrono-edit",
    transformer_class=(
        "diffusers.models.transformers.transformer_chronoedit.ChronoEditTransformer3DModel"
    ),
    call=PipelineCall(refuse_training=lambda config: "it is given the picture to edit", video=True),
)
