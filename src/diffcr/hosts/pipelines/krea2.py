"""How Krea 2 is called (diffusers/pipelines/krea2/pipeline_krea2.py)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.pipelines.packed import PACKED_CALL, pack_latents
from diffcr.hosts.pipelines.places import places
from diffcr.hosts.pipelines.prompt import Prompt, of_seen_rows
from diffcr.hosts.pipelines.text_inputs import masked_text_inputs


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    """All of the text is at the origin."""
    rows, columns = (side // 2 for side in latents.shape[2:])
    image = places(latents.device, 1, rows, columns).float()
    text = image.new_zeros(prompt.embeds.shape[1], 3)
    return {
        **masked_text_inputs(transformer, pack_latents(latents), timesteps, prompt, torch.bool),
        "position_ids": torch.cat([text, image]),
    }


def _blank_prompt(config: Any, text_tokens: int) -> Prompt:
    embeds = torch.zeros(1, text_tokens, config.num_text_layers, config.text_hidden_dim)
    return Prompt(embeds, torch.ones(1, text_tokens, dtype=torch.int64))


KREA2_CALL = replace(
    PACKED_CALL,
    inputs=_inputs,
    encode_prompt=of_seen_rows,
    blank_prompt=_blank_prompt,
)
