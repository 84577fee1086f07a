"""HiDream: experts in the feed-forward; a picture that is not square is padded behind its tokens
(diffusers/models/transformers/transformer_hidream_image.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.pipelines.hidream import HIDREAM_CALL

_TOKEN_INPUTS = (TokenInput("hidden_states_masks"), TokenInput("image_rotary_emb", others="after"))
HIDREAM_SINGLE_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "hidden_states_masks", "temb", "image_rotary_emb"),
    rows="first",
    token_inputs=_TOKEN_INPUTS,
    first_linear="block.attn1.to_q",
    mlp="block.ff_i",
)
HIDREAM_BLOCK = replace(
    HIDREAM_SINGLE_BLOCK,
    batched=(*HIDREAM_SINGLE_BLOCK.batched, "encoder_hidden_states"),
    outputs=("hidden_states", "encoder_hidden_states"),
)


def _refuse(config: Any, arguments: Mapping[str, Any]) -> str | None:
    if arguments.get("hidden_states_masks") is not None:
        return "pictures of several sizes in one call (hidden_states_masks) cannot be routed"
    return None


HIDREAM = Family(
    name="hidream",
    transformer_class=(
        "diffusers.models.transformers.transformer_hidream_image.HiDreamImageTransformer2DModel"
    ),
    block_groups={
        "double_stream_blocks": HIDREAM_BLOCK,
        "single_stream_blocks": HIDREAM_SINGLE_BLOCK,
    },
    timestep=NoiseScale("timesteps"),
    conditioning="encoder_hidden_states_t5",
    refuse=_refuse,
    refuse_compile="its experts count their tokens on the host, which breaks a graph",
    lora_targets=("to_q", "to_k", "to_v", "to_out"),
    call=HIDREAM_CALL,
)
