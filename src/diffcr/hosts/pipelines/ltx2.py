"""How LTX-2 is called (diffusers/pipelines/ltx2/pipeline_ltx2.py).

Videos without sound are trained with both streams apart, as the pipeline computes them for its
guidance by isolated modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.input_size import InputSize
from diffcr.hosts.pipelines.ltx import FRAMES_PER_LATENT, LTX_CALL
from diffcr.hosts.pipelines.packed import latents_as_tokens
from diffcr.hosts.pipelines.prompt import Prompt, blank_text, encode_with
from diffcr.hosts.pipelines.text_inputs import text_inputs

# Of the published models and their pipeline's videos.
FRAME_RATE, SOUND_LATENTS_PER_SECOND = 24.0, 25


def _inputs(
    transformer: Any,
    latents: Tensor,
    timesteps: Tensor,
    prompt: Prompt,
    sound_rows: int = 1,
    isolated: bool = True,
) -> dict[str, Any]:
    """Without content in the sound, of which the video sees nothing where they are isolated."""
    frames, rows, columns = latents.shape[2:]
    sound = latents.new_zeros(len(latents), sound_rows, transformer.config.audio_in_channels)
    return {
        **text_inputs(transformer, latents_as_tokens(latents), timesteps, prompt),
        "encoder_attention_mask": prompt.extra["seen"],
        "audio_hidden_states": sound,
        "audio_encoder_hidden_states": prompt.extra["sound"],
        "audio_encoder_attention_mask": prompt.extra["seen"],
        "sigma": timesteps,
        "num_frames": frames,
        "height": rows,
        "width": columns,
        "fps": FRAME_RATE,
        "audio_num_frames": sound_rows,
        "isolate_modalities": isolated,
        "use_cross_timestep": True,
    }


@torch.no_grad()
def _encode(pipe: Any, captions: Sequence[str], max_sequence_length: int) -> Prompt:
    """Video and sound have connectors of their own, which fill up the padding."""
    embeds, mask, *_ = encode_with(pipe, captions, max_sequence_length)
    side = getattr(pipe.tokenizer, "padding_side", "left")
    video, sound, seen = pipe.connectors(embeds, mask, padding_side=side)
    return Prompt(video, extra={"sound": sound, "seen": seen})


def _blank_prompt(config: Any, text_tokens: int) -> Prompt:
    """Models without projections of captions are given them as wide as their streams."""
    widths = ("cross_attention_dim", "audio_cross_attention_dim")
    if config.use_prompt_embeddings:
        widths = ("caption_channels", "caption_channels")
    video, sound = (blank_text(config, text_tokens, width).embeds for width in widths)
    seen = torch.ones(1, text_tokens, dtype=torch.int64)
    return Prompt(video, extra={"sound": sound, "seen": seen})


def _blank_inputs(transformer: Any, size: InputSize) -> dict[str, Any]:
    """Of both, as long as each other."""
    config, weights = transformer.config, next(transformer.parameters())
    latents = weights.new_zeros(1, config.in_channels, size.frames, *size.latents(config))
    prompt = _blank_prompt(config, size.text_tokens).to(weights.device, weights.dtype)
    seconds = ((size.frames - 1) * FRAMES_PER_LATENT + 1) / FRAME_RATE
    sound_rows = round(seconds * SOUND_LATENTS_PER_SECOND)
    return _inputs(transformer, latents, weights.new_zeros(1), prompt, sound_rows, isolated=False)


LTX2_CALL = replace(
    LTX_CALL,
    inputs=_inputs,
    encode_prompt=_encode,
    blank_prompt=_blank_prompt,
    blank_inputs=_blank_inputs,
)
