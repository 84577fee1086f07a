"""Cosmos Predict 1, 2 and 2.5 (diffusers/models/transformers/transformer_cosmos.py).

Cosmos 1 alone adds learned positions in every block, which a token that bypasses the block goes
without, and is told a quarter of log sigma instead of a noise level (pipeline_cosmos*.py).
"""

from __future__ import annotations

from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.lora_targets import FEED_FORWARD, SELF_AND_CROSS_ATTENTION
from diffcr.hosts.noise_scale import NoiseScale, QuarterLogSigma
from diffcr.hosts.pipelines.cosmos import COSMOS_CALL, is_first
from diffcr.hosts.token_inputs import ROTARY_TABLE

COSMOS_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=(
        *("hidden_states", "encoder_hidden_states", "attention_mask"),
        *("embedded_timestep", "temb", "extra_pos_emb", "controlnet_residual"),
    ),
    token_inputs=(
        ROTARY_TABLE,
        TokenInput("extra_pos_emb"),
        TokenInput("controlnet_residual"),
        # With a timestep per frame.
        TokenInput("embedded_timestep", of_ndim=3),
        TokenInput("temb", of_ndim=3),
    ),
    first_linear="attn1.to_q",
    mlp="ff",
)

COSMOS = Family(
    name="cosmos",
    transformer_class="diffusers.models.transformers.transformer_cosmos.CosmosTransformer3DModel",
    block_groups={"transformer_blocks": COSMOS_BLOCK},
    timestep=NoiseScale(noisy=1),
    timestep_of=lambda config: QuarterLogSigma() if is_first(config) else NoiseScale(noisy=1),
    lora_targets=SELF_AND_CROSS_ATTENTION + FEED_FORWARD,
    call=COSMOS_CALL,
)
