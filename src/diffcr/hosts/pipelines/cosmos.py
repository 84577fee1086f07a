"""How Cosmos is called (diffusers/pipelines/cosmos/pipeline_cosmos*.py)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from diffcr.hosts.pipelines.call import PipelineCall
from diffcr.hosts.pipelines.prompt import Prompt, blank_text, of_embeds
from diffcr.hosts.pipelines.text_inputs import text_inputs

_PIXELS_PER_LATENT, _FRAMES_PER_SECOND = 8, 30


def is_first(config: Any) -> bool:
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
    if is_first(config):
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
    width = "crossattn_proj_in_channels" if config.use_crossattn_projection else "text_embed_dim"
    return blank_text(config, text_tokens, width)


COSMOS_CALL = PipelineCall(
    inputs=_inputs,
    encode_prompt=of_embeds,
    refuse_training=_refuse_training,
    blank_prompt=_blank_prompt,
    latent_channels=lambda config: int(config.out_channels),
    video=True,
)
