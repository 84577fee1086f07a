"""How Wan VACE is called (diffusers/pipelines/wan/pipeline_wan_vace.py)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.pipelines.prompt import Prompt
from diffcr.hosts.pipelines.text_inputs import text_inputs
from diffcr.hosts.pipelines.wan import WAN_CALL


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    config = transformer.config
    return {
        **text_inputs(transformer, latents, timesteps, prompt),
        **_control(config, torch.zeros_like(latents)),
        "control_hidden_states_scale": latents.new_ones(len(config.vace_layers)),
    }


def _control(config: Any, grey: Tensor) -> dict[str, Any]:
    """What is kept and what is made anew, both grey, and a mask that says that all is made."""
    channels = config.vace_in_channels - 2 * grey.shape[1]
    mask = torch.ones_like(grey[:, :1]).expand(-1, channels, -1, -1, -1)
    return {"control_hidden_states": torch.cat([grey, grey, mask], 1)}


WAN_VACE_CALL = replace(WAN_CALL, inputs=_inputs, grey_inputs=_control)
