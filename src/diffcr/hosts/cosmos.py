"""Cosmos Predict 1, 2 and 2.5 (diffusers/models/transformers/transformer_cosmos.py).

Cosmos 1 alone adds learned positions in every block, which a token that bypasses the block goes
without, and is told a quarter of log sigma instead of a noise level (pipeline_cosmos*.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.noise_scale import NoiseScale

# Of the published schedulers of Cosmos 1; at noise levels 0 and 1 there is no sigma.
_SMALLEST_SIGMA, _LARGEST_SIGMA = 0.002, 80.0


@dataclass(frozen=True)
class QuarterLogSigma(NoiseScale):
    """0.25 log sigma, where the noise level is sigma / (1 + sigma)."""

    clean: float = -math.inf
    noisy: float = math.inf

    def level(self, value: float) -> float:
        """Noise level at a value of the argument."""
        return 1 / (1 + math.exp(-4 * value))

    def value(self, noise_level: float) -> float:
        """The argument at a noise level in [0, 1], within the sigmas of Cosmos 1."""
        sigma = noise_level / max(1 - noise_level, 1 / (1 + _LARGEST_SIGMA))
        return 0.25 * math.log(min(max(sigma, _SMALLEST_SIGMA), _LARGEST_SIGMA))


COSMOS_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=(
        *("hidden_states", "encoder_hidden_states", "attention_mask"),
        *("embedded_timestep", "temb", "extra_pos_emb", "controlnet_residual"),
    ),
    token_inputs=(
        TokenInput("image_rotary_emb", dims=(0,), shared=True),
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
    timestep_of=lambda config: (
        QuarterLogSigma() if config.extra_pos_embed_type else NoiseScale(noisy=1)
    ),
    lora_targets=(
        *("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0"),
        *("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"),
        *("ff.net.0.proj", "ff.net.2"),
    ),
)
