"""How HunyuanImage 2.1 is called (diffusers/pipelines/hunyuan_image/pipeline_hunyuanimage.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.pipelines.call import PipelineCall
from diffcr.hosts.pipelines.given_frames import given_beside
from diffcr.hosts.pipelines.prompt import Prompt, blank_text, of_tensors
from diffcr.hosts.pipelines.text_inputs import masked_text_inputs

# Of a guidance-distilled model in training: the pipeline's default, in thousandths.
DISTILLED_GUIDANCE = 3250.0
# What the pipeline pads the texts between quotation marks to.
_GLYPHS = 128


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


HUNYUAN_IMAGE_CALL = PipelineCall(
    inputs=_inputs,
    encode_prompt=_encode,
    blank_prompt=_blank_prompt,
    refuse_training=_refuse_training,
)
