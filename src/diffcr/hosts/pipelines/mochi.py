"""How Mochi is called (diffusers/pipelines/mochi/pipeline_mochi.py)."""

from __future__ import annotations

from functools import partial

import torch

from diffcr.hosts.pipelines.call import PipelineCall, turned_output
from diffcr.hosts.pipelines.prompt import blank_text, of_embeds_and_mask
from diffcr.hosts.pipelines.text_inputs import masked_text_inputs

MOCHI_CALL = PipelineCall(
    inputs=partial(masked_text_inputs, mask=torch.bool),
    encode_prompt=of_embeds_and_mask,
    prediction=turned_output,
    blank_prompt=partial(blank_text, channels="text_embed_dim", masked=True),
    video=True,
)
