"""How FLUX.2 and Klein are called (diffusers/pipelines/flux2/pipeline_flux2{,_klein}.py)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.pipelines.packed import PACKED_CALL, pack_latents
from diffcr.hosts.pipelines.places import places
from diffcr.hosts.pipelines.prompt import Prompt, blank_text, of_embeds
from diffcr.hosts.pipelines.text_inputs import text_inputs

# Of a guidance-distilled model in training: the pipeline's default. Klein is told none.
DISTILLED_GUIDANCE = 4.0


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    """Places have four axes: picture, row, column, and the token of the text."""
    samples, device = len(latents), latents.device
    guidance = timesteps.new_full((samples,), DISTILLED_GUIDANCE, dtype=torch.float32)
    rows, columns = (side // 2 for side in latents.shape[2:])
    text = places(device, 1, 1, 1, prompt.embeds.shape[1])
    return {
        **text_inputs(transformer, pack_latents(latents), timesteps, prompt),
        "guidance": guidance if transformer.config.guidance_embeds else None,
        "txt_ids": text.expand(samples, -1, -1),
        "img_ids": places(device, 1, rows, columns, 1).expand(samples, -1, -1),
    }


FLUX2_CALL = replace(
    PACKED_CALL,
    inputs=_inputs,
    encode_prompt=of_embeds,
    blank_prompt=partial(blank_text, channels="joint_attention_dim"),
)
