"""LTX-2, which denoises sound beside the video
(diffusers/models/transformers/transformer_ltx2.py).

Videos without sound are trained with both streams apart, as the pipeline computes them for its
guidance by isolated modalities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.calls import latents_as_tokens, text_inputs
from diffcr.hosts.family import InputSize
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.ltx import FRAMES_PER_LATENT, LTX
from diffcr.hosts.prompt import Prompt, blank_text, encode_with

# Of the published models and their pipeline's videos.
FRAME_RATE, SOUND_LATENTS_PER_SECOND = 24.0, 25

_AUDIO = (
    *("audio_hidden_states", "audio_encoder_hidden_states", "audio_encoder_attention_mask"),
    *("temb_audio", "temb_ca_audio_scale_shift", "temb_ca_audio_gate", "temb_prompt_audio"),
    *("audio_rotary_emb", "ca_audio_rotary_emb", "audio_self_attention_mask"),
)
_TABLES = ("video_rotary_emb", "ca_video_rotary_emb")
_MODULATIONS = ("temb", "temb_ca_scale_shift", "temb_ca_gate")
LTX2_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=(
        *("hidden_states", "encoder_hidden_states", "encoder_attention_mask", "temb_prompt"),
        *("self_attention_mask", "a2v_cross_attention_mask", "v2a_cross_attention_mask"),
        *("perturbation_mask", *_MODULATIONS, *_TABLES, *_AUDIO),
    ),
    outputs=("hidden_states", "audio_hidden_states"),
    token_inputs=(
        *(TokenInput(table, of_ndim=3) for table in _TABLES),
        # [B, heads, N, ...], with the rotary type "split".
        *(TokenInput(table, of_ndim=4, dims=(2,)) for table in _TABLES),
        *(TokenInput(modulation) for modulation in _MODULATIONS),
        TokenInput("self_attention_mask", dims=(-2, -1)),
        TokenInput("a2v_cross_attention_mask", dims=(-2,)),
        TokenInput("v2a_cross_attention_mask", dims=(-1,)),
    ),
    denoised_beside=("audio_hidden_states",),
    first_linear="attn1.to_q",
    mlp="ff",
)


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
    projected = config.use_prompt_embeddings
    widths = (
        ("caption_channels",) * 2
        if projected
        else ("cross_attention_dim", "audio_cross_attention_dim")
    )
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


LTX2 = replace(
    LTX,
    call_inputs=_inputs,
    encode_prompt=_encode,
    blank_prompt=_blank_prompt,
    blank_inputs=_blank_inputs,
    name="ltx2",
    transformer_class="diffusers.models.transformers.transformer_ltx2.LTX2VideoTransformer3DModel",
    block_groups={"transformer_blocks": LTX2_BLOCK},
)
