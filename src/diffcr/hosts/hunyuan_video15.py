"""HunyuanVideo 1.5 (diffusers/models/transformers/transformer_hunyuan_video15.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.calls import masked_text_inputs, with_no_given_frames
from diffcr.hosts.family import latents_grid
from diffcr.hosts.hunyuan_video import HUNYUAN_BLOCK, HUNYUAN_VIDEO
from diffcr.hosts.layout import TokenInput
from diffcr.hosts.prompt import Prompt, blank_text, of_tensors

# Rows of a picture's embeddings, zeros without one.
_PICTURE_ROWS = 729

# The mask is that of the text alone.
HUNYUAN15_BLOCK = replace(
    HUNYUAN_BLOCK,
    batched=("hidden_states", "encoder_hidden_states", "temb", "attention_mask"),
    optional=(),
    rows="all",
    token_inputs=(TokenInput("freqs_cis", dims=(0,), shared=True),),
)


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    """The pipeline's masks have the embeddings' dtype."""
    beside, dtype = with_no_given_frames(latents), latents.dtype
    picture = (len(latents), _PICTURE_ROWS, transformer.config.image_embed_dim)
    return {
        **masked_text_inputs(transformer, beside, timesteps, prompt, dtype),
        "encoder_hidden_states_2": prompt.extra["letters"],
        "encoder_attention_mask_2": prompt.extra["letters_mask"].to(dtype),
        "image_embeds": latents.new_zeros(picture),
    }


def _encode(pipe: Any, captions: Sequence[str], max_sequence_length: int) -> Prompt:
    """The second encoder reads what is to be written in the video, letter by letter."""
    names = ("embeds", "mask", "extra.letters", "extra.letters_mask")
    return of_tensors(pipe, captions, max_sequence_length, names)


def _blank_prompt(config: Any, text_tokens: int) -> Prompt:
    text = blank_text(config, text_tokens, "text_embed_dim", masked=True)
    letters = blank_text(config, 1, "text_embed_2_dim")
    extra = {"letters": letters.embeds, "letters_mask": torch.zeros(1, 1, dtype=torch.int64)}
    return replace(text, extra=extra)


def _refuse_training(config: Any) -> str | None:
    return "it is given a first frame" if config.task_type == "i2v" else None


HUNYUAN_VIDEO15 = replace(
    HUNYUAN_VIDEO,
    name="hunyuan-video-1.5",
    transformer_class=(
        "diffusers.models.transformers.transformer_hunyuan_video15.HunyuanVideo15Transformer3DModel"
    ),
    block_groups={"transformer_blocks": HUNYUAN15_BLOCK},
    call_inputs=_inputs,
    encode_prompt=_encode,
    blank_prompt=_blank_prompt,
    refuse_training=_refuse_training,
    latent_channels=lambda config: int(config.out_channels),
    grid=latents_grid,
)
