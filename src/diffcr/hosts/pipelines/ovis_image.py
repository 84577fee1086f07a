"""How Ovis-Image is called (diffusers/pipelines/ovis_image/pipeline_ovis_image.py)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from diffcr.hosts.pipelines.given_frames import given_beside
from diffcr.hosts.pipelines.packed import PACKED_CALL
from diffcr.hosts.pipelines.places import diagonal_places
from diffcr.hosts.pipelines.prompt import Prompt, blank_text, of_embeds
from diffcr.hosts.pipelines.text_inputs import packed_text_inputs


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    return {
        **packed_text_inputs(transformer, latents, timesteps, prompt),
        "txt_ids": diagonal_places(prompt.embeds).to(prompt.embeds.dtype),
        "joint_attention_kwargs": {},
    }


OVIS_IMAGE_CALL = replace(
    PACKED_CALL,
    inputs=_inputs,
    encode_prompt=of_embeds,
    blank_prompt=partial(blank_text, channels="joint_attention_dim"),
    refuse_training=given_beside,
)
