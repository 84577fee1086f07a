"""How CogView 4 and CogView 3 Plus are called
(diffusers/pipelines/{cogview4/pipeline_cogview4,cogview3/pipeline_cogview3plus}.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from diffcr.hosts.pipelines.call import PipelineCall
from diffcr.hosts.pipelines.given_frames import given_beside
from diffcr.hosts.pipelines.prompt import Prompt, blank_text, encode_with, of_embeds
from diffcr.hosts.pipelines.text_inputs import text_inputs

# Of a side of what their autoencoders make a latent of.
_PIXELS = 8


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    """Pictures that were not cropped."""
    samples, _, rows, columns = latents.shape
    size = prompt.embeds.new_tensor([_PIXELS * rows, _PIXELS * columns]).expand(samples, 2)
    return {
        **text_inputs(transformer, latents, timesteps, prompt),
        "original_size": size,
        "target_size": size,
        "crop_coords": prompt.embeds.new_zeros(samples, 2),
    }


def _encode_of_one_length(pipe: Any, captions: Sequence[str], max_sequence_length: int) -> Prompt:
    """The pipeline pads prompts to the longest of a call, and the model sees the padding: beside a
    prompt that is too long all have as many tokens in every call."""
    too_long = "a " * max_sequence_length
    embeds, *_ = encode_with(pipe, [*captions, too_long], max_sequence_length)
    return Prompt(embeds[:-1])


COGVIEW3_PLUS_CALL = PipelineCall(
    inputs=_inputs,
    encode_prompt=of_embeds,
    blank_prompt=partial(blank_text, channels="text_embed_dim"),
    refuse_training=given_beside,
)

COGVIEW4_CALL = replace(COGVIEW3_PLUS_CALL, encode_prompt=_encode_of_one_length)
