"""FLUX.2 and Klein, whose references are routed with the rest
(diffusers/models/transformers/transformer_flux2.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.calls import pack_latents, text_inputs
from diffcr.hosts.family import Family
from diffcr.hosts.flux import FLUX_BLOCK, JOINT_MASK, JOINT_TABLE
from diffcr.hosts.layout import BlockLayout
from diffcr.hosts.lora_targets import JOINT_ATTENTION
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.packed import PACKED, grid_of_image_ids, packed_grid
from diffcr.hosts.places import places
from diffcr.hosts.prompt import Prompt, blank_text, of_embeds

# Of a guidance-distilled model in training: the pipeline's default. Klein is told none.
DISTILLED_GUIDANCE = 4.0

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


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    """Places have four axes: picture, row, column, and the token of the text."""
    samples, device = len(latents), latents.device
    guidance = timesteps.new_full((samples,), DISTILLED_GUIDANCE, dtype=torch.float32)
    rows, columns = (side // 2 for side in latents.shape[2:])
    text = places(device, 1, 1, 1, prompt.embeds.shape[1])
    return {
        **text_inputs(transformer, pack_latents(latents), timesteps, prompt),
        "guidance": guidance if transformer.config.guidance_embeds else None,
        "txt_ids": text.expand(samples, -1, -1),
        "img_ids": places(device, 1, rows, columns, 1).expand(samples, -1, -1),
    }


FLUX2 = Family(
    name="flux2",
    transformer_class="diffusers.models.transformers.transformer_flux2.Flux2Transformer2DModel",
    block_groups={
        "transformer_blocks": FLUX2_BLOCK,
        "single_transformer_blocks": FLUX2_SINGLE_BLOCK,
    },
    timestep=NoiseScale(noisy=1),
    call_inputs=_inputs,
    encode_prompt=of_embeds,
    blank_prompt=partial(blank_text, channels="joint_attention_dim"),
    **PACKED,
    grid=packed_grid,
    read_grid=grid_of_image_ids,
    refuse=_refuse,
    lora_targets=(
        *JOINT_ATTENTION,
        # In double blocks it is a list of layers.
        *("attn.to_qkv_mlp_proj", "single_transformer_blocks.attn.to_out"),
    ),
)
