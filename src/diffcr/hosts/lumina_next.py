"""Lumina-Next (diffusers/models/transformers/lumina_nextdit2d.py).

The timestep falls from 1 for a picture to 0 for noise. Its proportional attention
(`base_sequence_length`) goes by the number of tokens that a block computes.
"""

from __future__ import annotations

from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.pipelines.lumina_next import LUMINA_NEXT_CALL

LUMINA_NEXT_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=(
        *("hidden_states", "attention_mask", "image_rotary_emb"),
        *("encoder_hidden_states", "encoder_mask", "temb"),
    ),
    token_inputs=(TokenInput("attention_mask"), TokenInput("image_rotary_emb")),
    first_linear="attn1.to_q",
    # A norm of the feed-forward's output undoes what scales that.
    mlp="ffn_norm2",
)

LUMINA_NEXT = Family(
    name="lumina-next",
    transformer_class="diffusers.models.transformers.lumina_nextdit2d.LuminaNextDiT2DModel",
    block_groups={"layers": LUMINA_NEXT_BLOCK},
    timestep=NoiseScale(clean=1, noisy=0),
    width=lambda config: int(config.hidden_size),
    lora_targets=(
        *("attn1.to_q", "attn1.to_k", "attn1.to_v"),
        *("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"),
    ),
    call=LUMINA_NEXT_CALL,
)
