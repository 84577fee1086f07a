"""CogView 4 and CogView 3 Plus: one feed-forward is called for image and for text
(diffusers/models/transformers/transformer_{cogview4,cogview3plus}.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from diffcr.hosts.calls import given_beside, text_inputs
from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.lora_targets import FEED_FORWARD, SELF_ATTENTION
from diffcr.hosts.prompt import Prompt, blank_text, encode_with, of_embeds

# Of a side of what their autoencoders make a latent of.
_PIXELS = 8

COGVIEW3_PLUS_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "encoder_hidden_states", "emb"),
    outputs=("hidden_states", "encoder_hidden_states"),
    first_linear="attn1.to_q",
)
COGVIEW4_BLOCK = replace(
    COGVIEW3_PLUS_BLOCK,
    batched=("hidden_states", "encoder_hidden_states", "temb", "attention_mask"),
    token_inputs=(TokenInput("image_rotary_emb", dims=(0,), shared=True),),
)


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


COGVIEW3_PLUS = Family(
    name="cogview3-plus",
    transformer_class=(
        "diffusers.models.transformers.transformer_cogview3plus.CogView3PlusTransformer2DModel"
    ),
    block_groups={"transformer_blocks": COGVIEW3_PLUS_BLOCK},
    call_inputs=_inputs,
    encode_prompt=of_embeds,
    blank_prompt=partial(blank_text, channels="text_embed_dim"),
    refuse_training=given_beside,
    lora_targets=SELF_ATTENTION + FEED_FORWARD,
)
COGVIEW4 = replace(
    COGVIEW3_PLUS,
    name="cogview4",
    transformer_class=(
        "diffusers.models.transformers.transformer_cogview4.CogView4Transformer2DModel"
    ),
    block_groups={"transformer_blocks": COGVIEW4_BLOCK},
    encode_prompt=_encode_of_one_length,
)
