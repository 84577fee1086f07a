"""FramePack: HunyuanVideo's blocks with rows of the past before those of the video
(diffusers/models/transformers/transformer_hunyuan_video_framepack.py)."""

from __future__ import annotations

from dataclasses import replace

from diffcr.hosts.grid import latents_grid
from diffcr.hosts.hunyuan_video import HUNYUAN_VIDEO
from diffcr.hosts.pipelines.call import PipelineCall

HUNYUAN_FRAMEPACK = replace(
    HUNYUAN_VIDEO,
    name="hunyuan-video-framepack",
    transformer_class=(
        "diffusers.models.transformers.transformer_hunyuan_video_framepack."
        "HunyuanVideoFramepackTransformer3DModel"
    ),
    grid=latents_grid,
    call=PipelineCall(
        refuse_training=lambda config: "it is given a picture and frames of the past to continue",
        video=True,
    ),
)
