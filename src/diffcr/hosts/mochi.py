"""Mochi, whose timestep falls from 1000 for a video to 0 for noise
(diffusers/models/transformers/transformer_mochi.py)."""

from __future__ import annotations

from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout
from diffcr.hosts.lora_targets import JOINT_SELF_ATTENTION
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.pipelines.mochi import MOCHI_CALL
from diffcr.hosts.token_inputs import ROTARY_TABLE

MOCHI_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "encoder_hidden_states", "temb", "encoder_attention_mask"),
    outputs=("hidden_states", "encoder_hidden_states"),
    token_inputs=(ROTARY_TABLE,),
    first_linear="attn1.to_q",
    # A norm of the feed-forward's output undoes what scales that.
    mlp="norm4",
)

MOCHI = Family(
    name="mochi",
    transformer_class="diffusers.models.transformers.transformer_mochi.MochiTransformer3DModel",
    block_groups={"transformer_blocks": MOCHI_BLOCK},
    timestep=NoiseScale(clean=1000, noisy=0),
    lora_targets=JOINT_SELF_ATTENTION,
    call=MOCHI_CALL,
)
