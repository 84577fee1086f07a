"""HunyuanVideo (diffusers/models/transformers/transformer_hunyuan_video.py).

With token replacement the first frame is given and always computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from diffcr.hosts.calls import given_beside, masked_text_inputs
from diffcr.hosts.family import Family, Grid, latents_grid
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.lora_targets import JOINT_ATTENTION
from diffcr.hosts.prompt import Prompt, blank_text, of_tensors

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
        **masked_text_inputs(transformer, latents, timesteps, prompt),
        "pooled_projections": prompt.pooled,
        "guidance": guidance if transformer.config.guidance_embeds else None,
    }


def _refuse_training(config: Any) -> str | None:
    if config.image_condition_type is not None:
        return "it is given a first frame"
    return given_beside(config)


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
    encode_prompt=partial(of_tensors, names=("embeds", "pooled", "mask")),
    blank_prompt=partial(
        blank_text, channels="text_embed_dim", masked=True, pooled="pooled_projection_dim"
    ),
    refuse_training=_refuse_training,
    video=True,
    grid=_grid,
    lora_targets=(*JOINT_ATTENTION, "proj_mlp", "proj_out"),
)
