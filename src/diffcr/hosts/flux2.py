"""FLUX.2 and Klein, whose references are routed with the rest
(diffusers/models/transformers/transformer_flux2.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from diffcr.hosts.flux import FLUX, FLUX_BLOCK
from diffcr.hosts.layout import BlockLayout
from diffcr.hosts.lora_targets import JOINT_ATTENTION
from diffcr.hosts.pipelines.flux2 import FLUX2_CALL
from diffcr.hosts.token_inputs import JOINT_MASK, JOINT_TABLE

FLUX2_BLOCK = replace(
    FLUX_BLOCK,
    batched=(
        *("hidden_states", "encoder_hidden_states", "temb_mod_img", "temb_mod_txt"),
        "joint_attention_kwargs",
    ),
)
# One layer makes queries, keys, values and the feed-forward's input of text and image.
FLUX2_SINGLE_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "temb_mod", "joint_attention_kwargs"),
    rows="last",
    token_inputs=(JOINT_TABLE, JOINT_MASK),
    refuses={"encoder_hidden_states": "a text stream of its own in single blocks"},
    first_linear="attn.to_qkv_mlp_proj",
    mlp="attn.mlp_act_fn",
)


def _refuse(config: Any, arguments: Mapping[str, Any]) -> str | None:
    if arguments.get("kv_cache_mode") is not None:
        return "kept keys and values of references (kv_cache_mode) cannot be combined with methods"
    return None


FLUX2 = replace(
    FLUX,
    name="flux2",
    transformer_class="diffusers.models.transformers.transformer_flux2.Flux2Transformer2DModel",
    block_groups={
        "transformer_blocks": FLUX2_BLOCK,
        "single_transformer_blocks": FLUX2_SINGLE_BLOCK,
    },
    refuse=_refuse,
    lora_targets=(
        *JOINT_ATTENTION,
        # In double blocks it is a list of layers.
        *("attn.to_qkv_mlp_proj", "single_transformer_blocks.attn.to_out"),
    ),
    call=FLUX2_CALL,
)
