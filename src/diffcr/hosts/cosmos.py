"""Cosmos Predict 1, 2 and 2.5 (diffusers/models/transformers/transformer_cosmos.py).

Cosmos 1 alone adds learned positions in every block, which a token that bypasses the block goes
without, and is told a quarter of log sigma instead of a noise level (pipeline_cosmos*.py).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from diffcr.hosts.calls import text_inputs
from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.lora_targets import FEED_FORWARD, SELF_AND_CROSS_ATTENTION
from diffcr.hosts.noise_scale import NoiseScale, QuarterLogSigma
from diffcr.hosts.prompt import Prompt, blank_text, of_embeds

_PIXELS_PER_LATENT, _FRAMES_PER_SECOND = 8, 30

COSMOS_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=(
        *("hidden_states", "encoder_hidden_states", "attention_mask"),
        *("embedded_timestep", "temb", "extra_pos_emb", "controlnet_residual"),
    ),
    token_inputs=(
        TokenInput("image_rotary_emb", dims=(0,), shared=True),
        TokenInput("extra_pos_emb"),
        TokenInput("controlnet_residual"),
        # With a timestep per frame.
        TokenInput("embedded_timestep", of_ndim=3),
        TokenInput("temb", of_ndim=3),
    ),
    first_linear="attn1.to_q",
    mlp="ff",
)


def _is_first(config: Any) -> bool:
    """Whether it is Cosmos 1."""
    return config.extra_pos_embed_type is not None


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    """Cosmos 1 is told the frames per second; 2.5 a noise level a frame and that none is given."""
    config = transformer.config
    batch, _, frames, rows, columns = latents.shape
    pixels = (_PIXELS_PER_LATENT * rows, _PIXELS_PER_LATENT * columns)
    given = {
        **text_inputs(transformer, latents, timesteps, prompt),
        "padding_mask": latents.new_zeros(1, 1, *pixels),
    }
    if _is_first(config):
        return {**given, "fps": _FRAMES_PER_SECOND}
    if config.in_channels == config.out_channels:
        return given
    levels = timesteps.view(batch, 1, 1, 1, 1).expand(-1, -1, frames, -1, -1)
    mask = latents.new_zeros(batch, 1, frames, rows, columns)
    return {**given, "timestep": levels, "condition_mask": mask}


def _refuse_training(config: Any) -> str | None:
    given = config.in_channels != config.out_channels
    # Cosmos 2.5 alone projects its texts; it is one model for texts and given frames.
    if config.img_context_dim_in or (given and not config.use_crossattn_projection):
        return "it is given frames to continue"
    return None


def _blank_prompt(config: Any, text_tokens: int) -> Prompt:
    projected = config.use_crossattn_projection
    return blank_text(
        config, text_tokens, "crossattn_proj_in_channels" if projected else "text_embed_dim"
    )


COSMOS = Family(
    name="cosmos",
    transformer_class="diffusers.models.transformers.transformer_cosmos.CosmosTransformer3DModel",
    block_groups={"transformer_blocks": COSMOS_BLOCK},
    timestep=NoiseScale(noisy=1),
    timestep_of=lambda config: QuarterLogSigma() if _is_first(config) else NoiseScale(noisy=1),
    call_inputs=_inputs,
    encode_prompt=of_embeds,
    refuse_training=_refuse_training,
    blank_prompt=_blank_prompt,
    latent_channels=lambda config: int(config.out_channels),
    video=True,
    lora_targets=SELF_AND_CROSS_ATTENTION + FEED_FORWARD,
)
