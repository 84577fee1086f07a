"""Mochi, whose timestep falls from 1000 for a video to 0 for noise
(diffusers/models/transformers/transformer_mochi.py)."""

from __future__ import annotations

from functools import partial

import torch

from diffcr.hosts.calls import masked_text_inputs, turned_output
from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.lora_targets import SELF_ATTENTION
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.prompt import blank_text, of_embeds_and_mask

MOCHI_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "encoder_hidden_states", "temb", "encoder_attention_mask"),
    outputs=("hidden_states", "encoder_hidden_states"),
    token_inputs=(TokenInput("image_rotary_emb", dims=(0,), shared=True),),
    first_linear="attn1.to_q",
    # A norm of the feed-forward's output undoes what scales that.
    mlp="norm4",
)


MOCHI = Family(
    name="mochi",
    transformer_class="diffusers.models.transformers.transformer_mochi.MochiTransformer3DModel",
    block_groups={"transformer_blocks": MOCHI_BLOCK},
    timestep=NoiseScale(clean=1000, noisy=0),
    call_inputs=partial(masked_text_inputs, mask=torch.bool),
    encode_prompt=of_embeds_and_mask,
    prediction=turned_output,
    blank_prompt=partial(blank_text, channels="text_embed_dim", masked=True),
    video=True,
    lora_targets=(
        *SELF_ATTENTION,
        *("attn1.add_q_proj", "attn1.add_k_proj", "attn1.add_v_proj", "attn1.to_add_out"),
    ),
)
