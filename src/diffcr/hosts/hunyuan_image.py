"""HunyuanImage 2.1: image in front of text
(diffusers/models/transformers/transformer_hunyuanimage.py)."""

from __future__ import annotations

from dataclasses import replace

from diffcr.hosts.family import Family
from diffcr.hosts.flux import FLUX
from diffcr.hosts.layout import BlockLayout
from diffcr.hosts.pipelines.hunyuan_image import HUNYUAN_IMAGE_CALL
from diffcr.hosts.token_inputs import MASK_WITH_TEXT_BEHIND, ROTARY_TABLE

HUNYUAN_IMAGE_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "encoder_hidden_states", "temb", "attention_mask"),
    outputs=("hidden_states", "encoder_hidden_states"),
    token_inputs=(ROTARY_TABLE, MASK_WITH_TEXT_BEHIND),
    first_linear="attn.to_q",
    mlp="ff",
)
# Its attention and its feed-forward run side by side over image and text.
HUNYUAN_IMAGE_SINGLE_BLOCK = replace(HUNYUAN_IMAGE_BLOCK, mlp="act_mlp", mlp_others="after")

HUNYUAN_IMAGE = Family(
    name="hunyuan-image",
    transformer_class=(
        "diffusers.models.transformers.transformer_hunyuanimage.HunyuanImageTransformer2DModel"
    ),
    block_groups={
        "transformer_blocks": HUNYUAN_IMAGE_BLOCK,
        "single_transformer_blocks": HUNYUAN_IMAGE_SINGLE_BLOCK,
    },
    lora_targets=FLUX.lora_targets,
    call=HUNYUAN_IMAGE_CALL,
)
