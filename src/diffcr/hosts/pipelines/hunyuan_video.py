"""How HunyuanVideo is called (diffusers/pipelines/hunyuan_video/pipeline_hunyuan_video.py)."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from diffcr.hosts.pipelines.call import PipelineCall
from diffcr.hosts.pipelines.given_frames import given_beside
from diffcr.hosts.pipelines.prompt import Prompt, blank_text, of_tensors
from diffcr.hosts.pipelines.text_inputs import masked_text_inputs

# What the pipeline tells a guidance-distilled model by default.
DISTILLED_GUIDANCE = 6.0


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    guidance = latents.new_full((len(latents),), 1000 * DISTILLED_GUIDANCE)
    return {
        **masked_text_inputs(transformer, latents, timesteps, prompt),
        "pooled_projections": prompt.pooled,
        "guidance": guidance if transformer.config.guidance_embeds else None,
    }


def _refuse_training(config: Any) -> str | None:
    if config.image_condition_type is not None:
        return "it is given a first frame"
    return given_beside(config)


HUNYUAN_VIDEO_CALL = PipelineCall(
    inputs=_inputs,
    encode_prompt=partial(of_tensors, names=("embeds", "pooled", "mask")),
    blank_prompt=partial(
        blank_text, channels="text_embed_dim", masked=True, pooled="pooled_projection_dim"
    ),
    refuse_training=_refuse_training,
    video=True,
)
