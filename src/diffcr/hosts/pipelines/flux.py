"""How FLUX.1 is called (diffusers/pipelines/flux/pipeline_flux.py)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.pipelines.given_frames import given_beside
from diffcr.hosts.pipelines.packed import PACKED_CALL
from diffcr.hosts.pipelines.prompt import Prompt, blank_text, of_tensors
from diffcr.hosts.pipelines.text_inputs import packed_text_inputs

# Of a guidance-distilled model in training: the pipeline's default, as in diffusers'
# examples/dreambooth/train_dreambooth_lora_flux.py.
DISTILLED_GUIDANCE = 3.5


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    """Places of the image are rows and columns of tokens; the text's are all 0."""
    guidance = timesteps.new_full((len(latents),), DISTILLED_GUIDANCE, dtype=torch.float32)
    return {
        **packed_text_inputs(transformer, latents, timesteps, prompt),
        "guidance": guidance if transformer.config.guidance_embeds else None,
        "pooled_projections": prompt.pooled,
        "txt_ids": latents.new_zeros(prompt.embeds.shape[1], 3),
        "joint_attention_kwargs": {},
    }


FLUX_CALL = replace(
    PACKED_CALL,
    inputs=_inputs,
    encode_prompt=partial(of_tensors, names=("embeds", "pooled")),
    blank_prompt=partial(
        blank_text, channels="joint_attention_dim", pooled="pooled_projection_dim"
    ),
    refuse_training=given_beside,
)
