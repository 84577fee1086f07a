"""FLUX.1: also Kontext, Fill, Control, whose references are routed with the rest
(diffusers/models/transformers/transformer_flux.py)."""

from __future__ import annotations

from dataclasses import replace

from diffcr.hosts.family import Family, NoiseScale, packed_grid
from diffcr.hosts.layout import BlockLayout, TokenInput

FLUX_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "encoder_hidden_states", "temb"),
    outputs=("encoder_hidden_states", "hidden_states"),
    token_inputs=(TokenInput("image_rotary_emb", dims=(0,), others="before", shared=True),),
    first_linear="attn.to_q",
    mlp="ff",
)
# Its attention and its feed-forward run side by side over text and image.
FLUX_SINGLE_BLOCK = replace(FLUX_BLOCK, mlp="act_mlp")
FLUX = Family(
    name="flux",
    transformer_class="diffusers.models.transformers.transformer_flux.FluxTransformer2DModel",
    block_groups={
        "transformer_blocks": FLUX_BLOCK,
        "single_transformer_blocks": FLUX_SINGLE_BLOCK,
    },
    timestep=NoiseScale(noisy=1),
    grid=packed_grid,
    lora_targets=(
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
        *("proj_mlp", "proj_out"),
    ),
)
