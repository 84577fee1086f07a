"""How Stable Diffusion 3 and 3.5 are called
(diffusers/pipelines/stable_diffusion_3/pipeline_stable_diffusion_3.py)."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from diffcr.hosts.pipelines.call import PipelineCall
from diffcr.hosts.pipelines.prompt import Prompt, blank_text, of_tensors
from diffcr.hosts.pipelines.text_inputs import text_inputs


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    return {
        **text_inputs(transformer, latents, timesteps, prompt),
        "pooled_projections": prompt.pooled,
    }


SD3_CALL = PipelineCall(
    inputs=_inputs,
    encode_prompt=partial(of_tensors, names=("embeds", "", "pooled")),
    blank_prompt=partial(
        blank_text, channels="joint_attention_dim", pooled="pooled_projection_dim"
    ),
)
