"""LTX-Video (diffusers/models/transformers/transformer_ltx.py).

With a timestep per token, as for given frames, modulations have a row per token. Given frames that
a pipeline appends as further tokens are routed with the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod
from typing import Any

from torch import Tensor

from diffcr.hosts.calls import latents_as_tokens, masked_text_inputs, tokens_as_latents
from diffcr.hosts.family import Family, Grid
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.lora_targets import SELF_AND_CROSS_ATTENTION
from diffcr.hosts.prompt import Prompt, blank_text, of_embeds_and_mask

# Of the published autoencoder, and of the pipeline's videos.
FRAMES_PER_LATENT, PIXELS_PER_LATENT, FRAME_RATE = 8, (32, 32), 25

LTX_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=(
        *("hidden_states", "encoder_hidden_states", "encoder_attention_mask"),
        *("temb", "image_rotary_emb"),
    ),
    token_inputs=(TokenInput("image_rotary_emb"), TokenInput("temb")),
    first_linear="attn1.to_q",
    mlp="ff",
)


def _grid(transformer: Any, arguments: Mapping[str, Any]) -> Grid:
    """From the sizes that a call names; with appended frames a place follows from nothing."""
    sides = [arguments.get(side) or 0 for side in ("height", "width", "num_frames")]
    tokens: int = arguments["hidden_states"].shape[1]
    return Grid(*sides) if prod(sides) == tokens else Grid(0, 0, beside=tokens)


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    """A latent is a token; its place is told in seconds and pixels."""
    frames, rows, columns = latents.shape[2:]
    return {
        **masked_text_inputs(transformer, latents_as_tokens(latents), timesteps, prompt),
        "num_frames": frames,
        "height": rows,
        "width": columns,
        "rope_interpolation_scale": (FRAMES_PER_LATENT / FRAME_RATE, *PIXELS_PER_LATENT),
    }


LTX = Family(
    name="ltx",
    transformer_class="diffusers.models.transformers.transformer_ltx.LTXVideoTransformer3DModel",
    block_groups={"transformer_blocks": LTX_BLOCK},
    call_inputs=_inputs,
    encode_prompt=of_embeds_and_mask,
    prediction=tokens_as_latents,
    blank_prompt=partial(blank_text, channels="caption_channels", masked=True),
    video=True,
    grid=_grid,
    lora_targets=SELF_AND_CROSS_ATTENTION,
)
