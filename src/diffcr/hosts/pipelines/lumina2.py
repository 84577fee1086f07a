"""How Lumina 2 is called (diffusers/pipelines/lumina2/pipeline_lumina2.py)."""

from __future__ import annotations

from functools import partial

from diffcr.hosts.pipelines.call import PipelineCall, turned_output
from diffcr.hosts.pipelines.prompt import blank_text, of_embeds_and_mask
from diffcr.hosts.pipelines.text_inputs import masked_text_inputs

LUMINA2_CALL = PipelineCall(
    inputs=masked_text_inputs,
    encode_prompt=of_embeds_and_mask,
    prediction=turned_output,
    blank_prompt=partial(blank_text, channels="cap_feat_dim", masked=True),
)
