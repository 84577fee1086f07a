"""PRX: text rows are keys alone (diffusers/models/transformers/transformer_prx.py)."""

from __future__ import annotations

from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.pipelines.prx import PRX_CALL

PRX_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=(
        *("hidden_states", "encoder_hidden_states", "temb"),
        *("image_rotary_emb", "attention_mask"),
    ),
    token_inputs=(TokenInput("image_rotary_emb", dims=(2,)),),
    first_linear="attention.img_qkv_proj",
    # The feed-forward is no module; what is behind its activation is linear.
    mlp="mlp_act",
)

PRX = Family(
    name="prx",
    transformer_class="diffusers.models.transformers.transformer_prx.PRXTransformer2DModel",
    block_groups={"blocks": PRX_BLOCK},
    timestep=NoiseScale(noisy=1),
    width=lambda config: int(config.hidden_size),
    lora_targets=(
        *("attention.img_qkv_proj", "attention.txt_kv_proj", "attention.to_out.0"),
        *("gate_proj", "up_proj", "down_proj"),
    ),
    call=PRX_CALL,
)
