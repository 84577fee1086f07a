"""Kandinsky 5, whose latents have channels last
(diffusers/models/transformers/transformer_kandinsky.py)."""

from __future__ import annotations

from diffcr.hosts.family import Family
from diffcr.hosts.grid import channels_last_grid
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.pipelines.kandinsky5 import KANDINSKY5_CALL

KANDINSKY5_BLOCK = BlockLayout(
    hidden_states="visual_embed",
    batched=("visual_embed", "text_embed", "time_embed", "rope"),
    token_inputs=(TokenInput("rope"),),
    refuses={"sparse_params": "sparse attention over squares of tokens"},
    first_linear="self_attention.to_query",
    mlp="feed_forward",
)
_ATTENTION = ("to_query", "to_key", "to_value", "out_layer")

KANDINSKY5 = Family(
    name="kandinsky5",
    transformer_class=(
        "diffusers.models.transformers.transformer_kandinsky.Kandinsky5Transformer3DModel"
    ),
    block_groups={"visual_transformer_blocks": KANDINSKY5_BLOCK},
    grid=channels_last_grid,
    width=lambda config: int(config.model_dim),
    lora_targets=(
        *(f"self_attention.{layer}" for layer in _ATTENTION),
        *(f"cross_attention.{layer}" for layer in _ATTENTION),
        *("feed_forward.in_layer", "feed_forward.out_layer"),
    ),
    call=KANDINSKY5_CALL,
)
