"""LTX-2, which denoises sound beside the video
(diffusers/models/transformers/transformer_ltx2.py)."""

from __future__ import annotations

from dataclasses import replace

from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.ltx import LTX
from diffcr.hosts.pipelines.ltx2 import LTX2_CALL

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

LTX2 = replace(
    LTX,
    name="ltx2",
    transformer_class="diffusers.models.transformers.transformer_ltx2.LTX2VideoTransformer3DModel",
    block_groups={"transformer_blocks": LTX2_BLOCK},
    call=LTX2_CALL,
)
