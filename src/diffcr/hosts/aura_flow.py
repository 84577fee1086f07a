"""AuraFlow, whose text has eight learned rows in front
(diffusers/models/transformers/auraflow_transformer_2d.py)."""

from __future__ import annotations

from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout
from diffcr.hosts.lora_targets import JOINT_ATTENTION
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.pipelines.aura_flow import AURA_FLOW_CALL

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
    lora_targets=(
        *JOINT_ATTENTION,
        *("linear_1", "linear_2", "out_projection"),
    ),
    call=AURA_FLOW_CALL,
)
