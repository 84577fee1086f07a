"""How Helios is called (diffusers/pipelines/helios/pipeline_helios.py)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.pipelines.call import PipelineCall
from diffcr.hosts.pipelines.prompt import Prompt, blank_text, of_embeds
from diffcr.hosts.pipelines.text_inputs import text_inputs

# Frames of the past at a quarter and at half of their size, from the oldest; the first frame of all
# and the last one have their full size.
_LONG, _MID = 16, 2


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    """Of the first part of a video, whose past is zeros."""
    batch, channels, frames, *sides = latents.shape
    places = torch.arange(_LONG + _MID + 2 + frames, device=latents.device)[None]
    first, long, mid, last, present = places.split([1, _LONG, _MID, 1, frames], 1)
    given = text_inputs(transformer, latents, timesteps, prompt)
    past = {"long": long, "mid": mid, "short": torch.cat([first, last], 1)}
    for name, where in past.items():
        frames_then = where.shape[1]
        given[f"latents_history_{name}"] = latents.new_zeros(batch, channels, frames_then, *sides)
        given[f"indices_latents_history_{name}"] = where
    return {**given, "indices_hidden_states": present}


HELIOS_CALL = PipelineCall(
    inputs=_inputs,
    encode_prompt=of_embeds,
    blank_prompt=partial(blank_text, channels="text_dim"),
    video=True,
)
