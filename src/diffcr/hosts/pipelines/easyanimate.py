"""How EasyAnimate is called (diffusers/pipelines/easyanimate/pipeline_easyanimate.py)."""

from __future__ import annotations

from functools import partial

from diffcr.hosts.pipelines.call import PipelineCall
from diffcr.hosts.pipelines.given_frames import given_beside
from diffcr.hosts.pipelines.prompt import blank_text, of_embeds
from diffcr.hosts.pipelines.text_inputs import text_inputs

EASYANIMATE_CALL = PipelineCall(
    inputs=text_inputs,
    encode_prompt=of_embeds,
    refuse_training=given_beside,
    blank_prompt=partial(blank_text, channels="text_embed_dim"),
    video=True,
)
