"""Inputs of one sample without content, by which operations are counted."""

from __future__ import annotations

from typing import Any

from diffcr.hosts.family import InputSize


def spatial_blank_inputs(
    transformer: Any, size: InputSize, text_channels: str = "joint_attention_dim"
) -> dict[str, Any]:
    """Latents [1, C, h, w] and text [1, T, D], whose width the configuration calls
    `text_channels`."""
    config, weights = transformer.config, next(transformer.parameters())
    return {
        "hidden_states": weights.new_zeros(1, config.in_channels, *size.latents(config)),
        "encoder_hidden_states": weights.new_zeros(1, size.text_tokens, config[text_channels]),
        "timestep": weights.new_zeros(1),
        "return_dict": False,
    }


def video_blank_inputs(
    transformer: Any, size: InputSize, text_channels: str = "text_embed_dim"
) -> dict[str, Any]:
    """The same of a video, whose latents are [1, C, frames, h, w]."""
    arguments = spatial_blank_inputs(transformer, size, text_channels)
    latents = arguments["hidden_states"].unsqueeze(2).repeat(1, 1, size.frames, 1, 1)
    return {**arguments, "hidden_states": latents}
