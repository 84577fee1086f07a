"""CogView 4, CogView 3 Plus and GLM-Image: one feed-forward is called for image and for text
(diffusers/models/transformers/transformer_{cogview4,cogview3plus,glm_image}.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from diffcr.hosts.blank_inputs import spatial_blank_inputs
from diffcr.hosts.family import Family, InputSize, NoiseScale
from diffcr.hosts.layout import BlockLayout, TokenInput

COGVIEW3_PLUS_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "encoder_hidden_states", "emb"),
    outputs=("hidden_states", "encoder_hidden_states"),
    first_linear="attn1.to_q",
)
COGVIEW4_BLOCK = replace(
    COGVIEW3_PLUS_BLOCK,
    batched=("hidden_states", "encoder_hidden_states", "temb", "attention_mask"),
    token_inputs=(TokenInput("image_rotary_emb", dims=(0,), shared=True),),
)


def _blank_inputs(transformer: Any, size: InputSize) -> dict[str, Any]:
    arguments = spatial_blank_inputs(transformer, size, text_channels="text_embed_dim")
    sizes = ("original_size", "target_size", "crop_coords")
    return arguments | {name: arguments["timestep"].new_zeros(1, 2) for name in sizes}


COGVIEW3_PLUS = Family(
    name="cogview3-plus",
    transformer_class=(
        "diffusers.models.transformers.transformer_cogview3plus.CogView3PlusTransformer2DModel"
    ),
    block_groups={"transformer_blocks": COGVIEW3_PLUS_BLOCK},
    blank_inputs=_blank_inputs,
    lora_targets=(
        *("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0"),
        *("ff.net.0.proj", "ff.net.2"),
    ),
)
COGVIEW4 = replace(
    COGVIEW3_PLUS,
    name="cogview4",
    transformer_class=(
        "diffusers.models.transformers.transformer_cogview4.CogView4Transformer2DModel"
    ),
    block_groups={"transformer_blocks": COGVIEW4_BLOCK},
)


def _refuse_kept_pictures(config: Any, arguments: Mapping[str, Any]) -> str | None:
    """A pipeline without given pictures passes caches, too, which then hold nothing."""
    caches = arguments.get("kv_caches")
    if caches is not None and caches[0].mode in ("write", "read"):
        return "kept keys and values of given pictures (kv_caches) cannot be combined with methods"
    return None


GLM_IMAGE = replace(
    COGVIEW4,
    name="glm-image",
    transformer_class=(
        "diffusers.models.transformers.transformer_glm_image.GlmImageTransformer2DModel"
    ),
    timestep=NoiseScale(clean=-1, noisy=999),
    refuse=_refuse_kept_pictures,
    # It looks for the dropped tokens' places, which the meta device has none of.
    blank_inputs=Family.blank_inputs,
)
