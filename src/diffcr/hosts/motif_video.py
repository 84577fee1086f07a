"""Motif-Video (diffusers/models/transformers/transformer_motif_video.py).

The last blocks may be a decoder, to which the video that the others computed is the text: it is
computed whole, and the decoder's own tokens are routed.
"""

from __future__ import annotations

from dataclasses import replace

from diffcr.hosts.blank_inputs import video_blank_inputs
from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout, TokenInput

MOTIF_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "encoder_hidden_states", "temb", "attention_mask"),
    outputs=("hidden_states", "encoder_hidden_states"),
    token_inputs=(
        TokenInput("attention_mask", dims=(-1,), others="after"),
        TokenInput("image_rotary_emb", dims=(0,), shared=True),
    ),
    first_linear="attn.to_q",
    mlp="ff",
)
# Its attention and its feed-forward run side by side over video and text.
MOTIF_SINGLE_BLOCK = replace(MOTIF_BLOCK, mlp="act_mlp", mlp_others="after")
MOTIF_VIDEO = Family(
    name="motif-video",
    transformer_class=(
        "diffusers.models.transformers.transformer_motif_video.MotifVideoTransformer3DModel"
    ),
    block_groups={
        "transformer_blocks": MOTIF_BLOCK,
        "single_transformer_blocks": MOTIF_SINGLE_BLOCK,
    },
    blank_inputs=video_blank_inputs,
    lora_targets=(
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
        *("cross_attn.to_q", "cross_attn.to_k", "cross_attn.to_v", "cross_attn.to_out.0"),
        *("proj_mlp", "proj_out"),
    ),
)
