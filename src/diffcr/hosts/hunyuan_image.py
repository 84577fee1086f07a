"""HunyuanImage 2.1: image in front of text
(diffusers/models/transformers/transformer_hunyuanimage.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.calls import given_beside, masked_text_inputs
from diffcr.hosts.family import Family
from diffcr.hosts.flux import FLUX
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.prompt import Prompt, blank_text, of_tensors

# Of a guidance-distilled model in training: the pipeline's default, in thousandths.
DISTILLED_GUIDANCE = 3250.0
# What the pipeline pads the texts between quotation marks to.
_GLYPHS = 128

HUNYUAN_IMAGE_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "encoder_hidden_states", "temb", "attention_mask"),
    outputs=("hidden_states", "encoder_hidden_states"),
    token_inputs=(
        TokenInput("image_rotary_emb", dims=(0,), shared=True),
        TokenInput("attention_mask", dims=(-1,), others="after"),
    ),
    first_linear="attn.to_q",
    mlp="ff",
)
# Its attention and its feed-forward run side by side over image and text.
HUNYUAN_IMAGE_SINGLE_BLOCK = replace(HUNYUAN_IMAGE_BLOCK, mlp="act_mlp", mlp_others="after")


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    guidance = timesteps.new_full((len(latents),), DISTILLED_GUIDANCE, dtype=latents.dtype)
    return {
        **masked_text_inputs(transformer, latents, timesteps, prompt),
        "guidance": guidance if transformer.config.guidance_embeds else None,
        "encoder_hidden_states_2": prompt.extra["glyphs"],
        "encoder_attention_mask_2": prompt.extra["glyph_mask"],
    }


def _encode(pipe: Any, captions: Sequence[str], max_sequence_length: int) -> Prompt:
    """What stands between quotation marks is told once more, letter by letter."""
    names = ("embeds", "mask", "extra.glyphs", "extra.glyph_mask")
    return of_tensors(pipe, captions, max_sequence_length, names)


def _blank_prompt(config: Any, text_tokens: int) -> Prompt:
    """Nothing stands between quotation marks."""
    text = blank_text(config, text_tokens, "text_embed_dim", masked=True)
    mask = torch.zeros(1, _GLYPHS, dtype=torch.int64)
    glyphs = torch.zeros(1, _GLYPHS, config.text_embed_2_dim or 0)
    return replace(text, extra={"glyphs": glyphs, "glyph_mask": mask})


def _refuse_training(config: Any) -> str | None:
    if config.use_meanflow:
        return "it is told the timestep of the sampler's next step, too, which training has none of"
    return given_beside(config)


HUNYUAN_IMAGE = Family(
    name="hunyuan-image",
    transformer_class=(
        "diffusers.models.transformers.transformer_hunyuanimage.HunyuanImageTransformer2DModel"
    ),
    block_groups={
        "transformer_blocks": HUNYUAN_IMAGE_BLOCK,
        "single_transformer_blocks": HUNYUAN_IMAGE_SINGLE_BLOCK,
    },
    call_inputs=_inputs,
    encode_prompt=_encode,
    blank_prompt=_blank_prompt,
    refuse_training=_refuse_training,
    lora_targets=FLUX.lora_targets,
)
