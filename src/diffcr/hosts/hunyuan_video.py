"""HunyuanVideo (diffusers/models/transformers/transformer_hunyuan_video.py).

With token replacement the first frame is given and always computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.calls import given_beside
from diffcr.hosts.family import Family, Grid, latents_grid
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.prompt import Prompt, encode_with

# What the pipeline tells a guidance-distilled model by default.
DISTILLED_GUIDANCE = 6.0

_BATCHED = ("hidden_states", "encoder_hidden_states", "temb", "attention_mask")
_MASK = TokenInput("attention_mask", dims=(-1,), others="after")
HUNYUAN_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=(*_BATCHED, "token_replace_emb"),
    optional=("token_replace_emb",),
    rows="last",
    outputs=("hidden_states", "encoder_hidden_states"),
    token_inputs=(_MASK, TokenInput("freqs_cis", dims=(0,), shared=True)),
    first_linear="attn.to_q",
    mlp="ff",
)
# Its attention and its feed-forward run side by side over video and text.
HUNYUAN_SINGLE_BLOCK = replace(
    HUNYUAN_BLOCK,
    token_inputs=(_MASK, TokenInput("image_rotary_emb", dims=(0,), shared=True)),
    mlp="act_mlp",
    mlp_others="after",
)


def _grid(transformer: Any, arguments: Mapping[str, Any]) -> Grid:
    grid = latents_grid(transformer, arguments)
    given = int(transformer.config.image_condition_type == "token_replace")
    return replace(grid, frames=grid.frames - given)


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    guidance = latents.new_full((len(latents),), 1000 * DISTILLED_GUIDANCE)
    return {
        "hidden_states": latents,
        "timestep": timesteps,
        "encoder_hidden_states": prompt.embeds,
        "encoder_attention_mask": prompt.mask,
        "pooled_projections": prompt.pooled,
        "guidance": guidance if transformer.config.guidance_embeds else None,
        "attention_kwargs": None,
        "return_dict": False,
    }


def _refuse_training(config: Any) -> str | None:
    if config.image_condition_type is not None:
        return "it is given a first frame"
    return given_beside(config)


def _encode(pipe: Any, captions: Sequence[str], max_sequence_length: int) -> Prompt:
    embeds, pooled, mask = encode_with(pipe, captions, max_sequence_length)
    return Prompt(embeds, mask, pooled)


def _blank_prompt(config: Any, text_tokens: int) -> Prompt:
    embeds = torch.zeros(1, text_tokens, config.text_embed_dim)
    mask = torch.ones(1, text_tokens, dtype=torch.int64)
    return Prompt(embeds, mask, torch.zeros(1, config.pooled_projection_dim))


_JOINT_ATTENTION = (
    *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
    *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
)
HUNYUAN_VIDEO = Family(
    name="hunyuan-video",
    transformer_class=(
        "diffusers.models.transformers.transformer_hunyuan_video.HunyuanVideoTransformer3DModel"
    ),
    block_groups={
        "transformer_blocks": HUNYUAN_BLOCK,
        "single_transformer_blocks": HUNYUAN_SINGLE_BLOCK,
    },
    call_inputs=_inputs,
    encode_prompt=_encode,
    blank_prompt=_blank_prompt,
    refuse_training=_refuse_training,
    video=True,
    grid=_grid,
    lora_targets=(*_JOINT_ATTENTION, "proj_mlp", "proj_out"),
)
