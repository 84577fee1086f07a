"""PixArt-alpha and PixArt-Sigma.

A token carries its additive position embedding, so a subset of tokens needs nothing else. Blocks
are `BasicTransformerBlock` with `ada_norm_single`; their argument `timestep` is the projected
modulation [B, 6 D], not a timestep (diffusers/models/transformers/pixart_transformer_2d.py).
"""

from __future__ import annotations

from diffcr.families.family import Family
from diffcr.seam import BlockLayout

PIXART = Family(
    name="pixart",
    transformer_class=(
        "diffusers.models.transformers.pixart_transformer_2d.PixArtTransformer2DModel"
    ),
    block_groups={
        "transformer_blocks": BlockLayout(
            hidden_states="hidden_states",
            batched=(
                "hidden_states",
                "attention_mask",
                "encoder_hidden_states",
                "encoder_attention_mask",
                "timestep",
                "class_labels",
            ),
            token_dims={"attention_mask": -1},
            mlp="ff",
        )
    },
    width=("num_attention_heads", "attention_head_dim"),
    timestep="timestep",
    lora_targets=("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"),
)
