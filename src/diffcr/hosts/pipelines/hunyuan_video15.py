"""How HunyuanVideo 1.5 is called
(diffusers/pipelines/hunyuan_video1_5/pipeline_hunyuan_video1_5.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.pipelines.call import PipelineCall
from diffcr.hosts.pipelines.given_frames import with_no_given_frames
from diffcr.hosts.pipelines.prompt import Prompt, blank_text, of_tensors
from diffcr.hosts.pipelines.text_inputs import masked_text_inputs

# Rows of a picture's embeddings, zeros without one.
_PICTURE_ROWS = 729


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


HUNYUAN_VIDEO15_CALL = PipelineCall(
    inputs=_inputs,
    encode_prompt=_encode,
    blank_prompt=_blank_prompt,
    refuse_training=_refuse_training,
    latent_channels=lambda config: int(config.out_channels),
    video=True,
)
