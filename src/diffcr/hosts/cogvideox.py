"""CogVideoX, whose latents have frames before channels
(diffusers/models/transformers/cogvideox_transformer_3d.py)."""

from __future__ import annotations

from diffcr.hosts.family import Family
from diffcr.hosts.grid import frames_first_grid
from diffcr.hosts.layout import BlockLayout
from diffcr.hosts.lora_targets import SELF_ATTENTION
from diffcr.hosts.pipelines.cogvideox import COGVIDEOX_CALL
from diffcr.hosts.token_inputs import ROTARY_TABLE

COGVIDEOX_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "encoder_hidden_states", "temb"),
    outputs=("hidden_states", "encoder_hidden_states"),
    token_inputs=(ROTARY_TABLE,),
    first_linear="attn1.to_q",
    mlp="ff",
    mlp_others="before",
)

COGVIDEOX = Family(
    name="cogvideox",
    transformer_class=(
        "diffusers.models.transformers.cogvideox_transformer_3d.CogVideoXTransformer3DModel"
    ),
    block_groups={"transformer_blocks": COGVIDEOX_BLOCK},
    grid=frames_first_grid,
    lora_targets=SELF_ATTENTION,
    call=COGVIDEOX_CALL,
)
