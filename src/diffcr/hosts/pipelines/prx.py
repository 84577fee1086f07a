"""How PRX is called (diffusers/pipelines/prx/pipeline_prx.py)."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from diffcr.hosts.pipelines.call import PipelineCall
from diffcr.hosts.pipelines.prompt import Prompt, blank_text, of_seen_rows


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    return {
        "hidden_states": latents,
        "timestep": timesteps,
        "encoder_hidden_states": prompt.embeds,
        "attention_mask": None if prompt.mask is None else prompt.mask.bool(),
        "return_dict": False,
    }


def _refuse_training(config: Any) -> str | None:
    if config.resolution_embeds:
        return "it denoises pixels and predicts the picture, not the velocity of a flow"
    return None


PRX_CALL = PipelineCall(
    inputs=_inputs,
    encode_prompt=of_seen_rows,
    blank_prompt=partial(blank_text, channels="context_in_dim"),
    refuse_training=_refuse_training,
)
