"""EasyAnimate (diffusers/models/transformers/transformer_easyanimate.py).

Its last blocks call one feed-forward for video and for text.
"""

from __future__ import annotations

from functools import partial

from diffcr.hosts.calls import given_beside, text_inputs
from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.lora_targets import SELF_ATTENTION
from diffcr.hosts.prompt import blank_text, of_embeds

EASYANIMATE_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "encoder_hidden_states", "temb"),
    outputs=("hidden_states", "encoder_hidden_states"),
    token_inputs=(TokenInput("image_rotary_emb", dims=(0,), shared=True),),
    first_linear="attn1.to_q",
)
EASYANIMATE = Family(
    name="easyanimate",
    transformer_class=(
        "diffusers.models.transformers.transformer_easyanimate.EasyAnimateTransformer3DModel"
    ),
    block_groups={"transformer_blocks": EASYANIMATE_BLOCK},
    call_inputs=text_inputs,
    encode_prompt=of_embeds,
    refuse_training=given_beside,
    blank_prompt=partial(blank_text, channels="text_embed_dim"),
    video=True,
    lora_targets=(
        *SELF_ATTENTION,
        *("attn1.add_q_proj", "attn1.add_k_proj", "attn1.add_v_proj", "attn1.to_add_out"),
    ),
)
