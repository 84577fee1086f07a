"""How Chroma is called (diffusers/pipelines/chroma/pipeline_chroma.py)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.pipelines.flux import FLUX_CALL
from diffcr.hosts.pipelines.packed import pack_latents
from diffcr.hosts.pipelines.places import image_places
from diffcr.hosts.pipelines.prompt import Prompt, blank_text, of_tensors
from diffcr.hosts.pipelines.text_inputs import text_inputs


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    """The image is seen whole, the text where its mask says so."""
    tokens, mask = pack_latents(latents), prompt.mask
    if mask is not None:
        mask = torch.cat([mask.to(latents.dtype), latents.new_ones(tokens.shape[:2])], dim=1)
    return {
        **text_inputs(transformer, tokens, timesteps, prompt),
        "txt_ids": latents.new_zeros(prompt.embeds.shape[1], 3),
        "img_ids": image_places(latents),
        "attention_mask": mask,
        "joint_attention_kwargs": {},
    }


CHROMA_CALL = replace(
    FLUX_CALL,
    inputs=_inputs,
    encode_prompt=partial(of_tensors, names=("embeds", "", "mask")),
    blank_prompt=partial(blank_text, channels="joint_attention_dim"),
)
