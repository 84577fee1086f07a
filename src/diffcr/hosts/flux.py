"""FLUX.1: also Kontext, Fill, Control, whose references are routed with the rest
(diffusers/models/transformers/transformer_flux.py)."""

from __future__ import annotations

from dataclasses import replace

from diffcr.hosts.family import Family
from diffcr.hosts.grid import grid_of_image_ids, packed_grid
from diffcr.hosts.layout import BlockLayout
from diffcr.hosts.lora_targets import FEED_FORWARD, JOINT_ATTENTION, SIDE_BY_SIDE
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.pipelines.flux import FLUX_CALL
from diffcr.hosts.token_inputs import JOINT_MASK, JOINT_TABLE

FLUX_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "encoder_hidden_states", "temb", "joint_attention_kwargs"),
    outputs=("encoder_hidden_states", "hidden_states"),
    token_inputs=(JOINT_TABLE, JOINT_MASK),
    first_linear="attn.to_q",
    mlp="ff",
)
# Its attention and its feed-forward run side by side over text and image.
FLUX_SINGLE_BLOCK = replace(FLUX_BLOCK, mlp="act_mlp", mlp_others="before")

FLUX = Family(
    name="flux",
    transformer_class="diffusers.models.transformers.transformer_flux.FluxTransformer2DModel",
    block_groups={
        "transformer_blocks": FLUX_BLOCK,
        "single_transformer_blocks": FLUX_SINGLE_BLOCK,
    },
    timestep=NoiseScale(noisy=1),
    grid=packed_grid,
    read_grid=grid_of_image_ids,
    lora_targets=(
        *JOINT_ATTENTION,
        *FEED_FORWARD,
        *("ff_context.net.0.proj", "ff_context.net.2"),
        *SIDE_BY_SIDE,
    ),
    call=FLUX_CALL,
)
