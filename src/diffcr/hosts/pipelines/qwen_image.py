"""How Qwen-Image is called (diffusers/pipelines/qwenimage/pipeline_qwenimage.py)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from diffcr.hosts.pipelines.given_frames import given_beside
from diffcr.hosts.pipelines.packed import PACKED_CALL, pack_latents
from diffcr.hosts.pipelines.prompt import Prompt, blank_text, of_embeds_and_mask
from diffcr.hosts.pipelines.text_inputs import text_inputs


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    rows, columns = (side // 2 for side in latents.shape[2:])
    return {
        **text_inputs(transformer, pack_latents(latents), timesteps, prompt),
        "encoder_hidden_states_mask": prompt.mask,
        "img_shapes": [[(1, rows, columns)]] * len(latents),
    }


QWEN_IMAGE_CALL = replace(
    PACKED_CALL,
    guidance="true_cfg_scale",
    inputs=_inputs,
    encode_prompt=of_embeds_and_mask,
    blank_prompt=partial(blank_text, channels="joint_attention_dim"),
    refuse_training=partial(given_beside, packed=4),
)
