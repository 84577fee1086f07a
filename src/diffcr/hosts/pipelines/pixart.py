"""How PixArt-alpha and PixArt-Sigma are called
(diffusers/pipelines/pixart_alpha/pipeline_pixart_{alpha,sigma}.py)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.pipelines.call import PipelineCall
from diffcr.hosts.pipelines.prompt import Prompt, of_embeds_and_mask

# Of the autoencoder of every published model that takes the picture's size as a condition.
PIXELS_PER_LATENT = 8


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    """As in diffusers' pipeline_pixart_alpha.py: the 1024 model is told the picture's size."""
    conditions: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
    if transformer.use_additional_conditions:
        height, width = (PIXELS_PER_LATENT * side for side in latents.shape[-2:])
        size = torch.tensor([[height, width]]).to(latents)
        conditions["resolution"] = size.expand(len(latents), 2)
        conditions["aspect_ratio"] = (size[:, :1] / size[:, 1:]).expand(len(latents), 1)
    return {
        "hidden_states": latents,
        "encoder_hidden_states": prompt.embeds,
        "encoder_attention_mask": prompt.mask,
        "timestep": timesteps,
        "added_cond_kwargs": conditions,
        "return_dict": False,
    }


def _blank_prompt(config: Any, text_tokens: int) -> Prompt:
    """Embeddings of the width that captions have."""
    channels = config.caption_channels or config.cross_attention_dim
    return Prompt(torch.zeros(1, text_tokens, channels))


PIXART_CALL = PipelineCall(
    inputs=_inputs,
    encode_prompt=of_embeds_and_mask,
    blank_prompt=_blank_prompt,
)
