"""AuraFlow, whose text has eight learned rows in front
(diffusers/models/transformers/auraflow_transformer_2d.py)."""

from __future__ import annotations

from diffcr.hosts.blank_inputs import spatial_blank_inputs
from diffcr.hosts.family import Family, NoiseScale
from diffcr.hosts.layout import BlockLayout

AURA_FLOW_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "encoder_hidden_states", "temb"),
    outputs=("encoder_hidden_states", "hidden_states"),
    first_linear="attn.to_q",
    mlp="ff",
)
AURA_FLOW_SINGLE_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "temb"),
    rows="last",
    first_linear="attn.to_q",
    mlp="ff",
)
AURA_FLOW = Family(
    name="aura-flow",
    transformer_class=(
        "diffusers.models.transformers.auraflow_transformer_2d.AuraFlowTransformer2DModel"
    ),
    block_groups={
        "joint_transformer_blocks": AURA_FLOW_BLOCK,
        "single_transformer_blocks": AURA_FLOW_SINGLE_BLOCK,
    },
    timestep=NoiseScale(noisy=1),
    blank_inputs=spatial_blank_inputs,
    lora_targets=(
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
        *("linear_1", "linear_2", "out_projection"),
    ),
)
