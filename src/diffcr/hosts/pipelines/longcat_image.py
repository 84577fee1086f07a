"""How LongCat-Image is called (diffusers/pipelines/longcat_image/pipeline_longcat_image.py)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from diffcr.hosts.pipelines.given_frames import given_beside
from diffcr.hosts.pipelines.packed import PACKED_CALL, pack_latents
from diffcr.hosts.pipelines.places import diagonal_places, places
from diffcr.hosts.pipelines.prompt import Prompt, blank_text, of_embeds
from diffcr.hosts.pipelines.text_inputs import text_inputs

# Its pictures begin behind its longest prompt: kind of token, row, column.
_START = (1, 512, 512)


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    """Places are in float32: bfloat16 has no odd numbers above 256."""
    rows, columns = (side // 2 for side in latents.shape[2:])
    image = places(latents.device, 1, rows, columns).float()
    return {
        **text_inputs(transformer, pack_latents(latents), timesteps, prompt),
        "txt_ids": diagonal_places(prompt.embeds),
        "img_ids": image + image.new_tensor(_START),
    }


LONGCAT_IMAGE_CALL = replace(
    PACKED_CALL,
    inputs=_inputs,
    encode_prompt=of_embeds,
    blank_prompt=partial(blank_text, channels="joint_attention_dim"),
    refuse_training=given_beside,
)
