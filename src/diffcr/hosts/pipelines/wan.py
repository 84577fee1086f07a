"""How Wan 2.1 and 2.2 are called (diffusers/pipelines/wan/pipeline_wan.py)."""

from __future__ import annotations

from functools import partial

from diffcr.hosts.pipelines.call import PipelineCall
from diffcr.hosts.pipelines.given_frames import given_beside
from diffcr.hosts.pipelines.prompt import blank_text, of_embeds
from diffcr.hosts.pipelines.text_inputs import text_inputs

WAN_CALL = PipelineCall(
    inputs=text_inputs,
    encode_prompt=of_embeds,
    blank_prompt=partial(blank_text, channels="text_dim"),
    refuse_training=given_beside,
    video=True,
)
