"""Stable Diffusion 3 and 3.5 (diffusers/models/transformers/transformer_sd3.py).

Positions are added to the tokens; the last block returns None for the text.
"""

from __future__ import annotations

from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout
from diffcr.hosts.lora_targets import JOINT_ATTENTION
from diffcr.hosts.pipelines.sd3 import SD3_CALL

SD3_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "encoder_hidden_states", "temb"),
    outputs=("encoder_hidden_states", "hidden_states"),
    first_linear="attn.to_q",
    mlp="ff",
)

SD3 = Family(
    name="sd3",
    transformer_class="diffusers.models.transformers.transformer_sd3.SD3Transformer2DModel",
    block_groups={"transformer_blocks": SD3_BLOCK},
    lora_targets=JOINT_ATTENTION,
    call=SD3_CALL,
)
