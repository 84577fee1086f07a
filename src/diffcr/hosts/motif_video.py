"""Motif-Video (diffusers/models/transformers/transformer_motif_video.py).

The last blocks may be a decoder, to which the video that the others computed is the text: it is
computed whole, and the decoder's own tokens are routed.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.calls import masked_text_inputs, with_no_given_frames
from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.lora_targets import JOINT_ATTENTION
from diffcr.hosts.prompt import Prompt, blank_text, of_tensors

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


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    beside = with_no_given_frames(latents)
    return masked_text_inputs(transformer, beside, timesteps, prompt, torch.bool)


MOTIF_VIDEO = Family(
    name="motif-video",
    transformer_class=(
        "diffusers.models.transformers.transformer_motif_video.MotifVideoTransformer3DModel"
    ),
    block_groups={
        "transformer_blocks": MOTIF_BLOCK,
        "single_transformer_blocks": MOTIF_SINGLE_BLOCK,
    },
    call_inputs=_inputs,
    encode_prompt=partial(of_tensors, names=("embeds", "", "mask")),
    blank_prompt=partial(blank_text, channels="text_embed_dim", masked=True),
    latent_channels=lambda config: int(config.out_channels),
    video=True,
    lora_targets=(
        *JOINT_ATTENTION,
        *("cross_attn.to_q", "cross_attn.to_k", "cross_attn.to_v", "cross_attn.to_out.0"),
        *("proj_mlp", "proj_out"),
    ),
)
