"""How AuraFlow is called (diffusers/pipelines/aura_flow/pipeline_aura_flow.py)."""

from __future__ import annotations

from functools import partial

from diffcr.hosts.pipelines.call import PipelineCall
from diffcr.hosts.pipelines.prompt import blank_text, of_embeds
from diffcr.hosts.pipelines.text_inputs import text_inputs

AURA_FLOW_CALL = PipelineCall(
    inputs=text_inputs,
    encode_prompt=of_embeds,
    blank_prompt=partial(blank_text, channels="joint_attention_dim"),
)
