"""How LTX-Video is called (diffusers/pipelines/ltx/pipeline_ltx.py)."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from diffcr.hosts.pipelines.call import PipelineCall
from diffcr.hosts.pipelines.packed import latents_as_tokens, tokens_as_latents
from diffcr.hosts.pipelines.prompt import Prompt, blank_text, of_embeds_and_mask
from diffcr.hosts.pipelines.text_inputs import masked_text_inputs

# Of the published autoencoder, and of the pipeline's videos.
FRAMES_PER_LATENT, PIXELS_PER_LATENT, FRAME_RATE = 8, (32, 32), 25


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


LTX_CALL = PipelineCall(
    inputs=_inputs,
    encode_prompt=of_embeds_and_mask,
    prediction=tokens_as_latents,
    blank_prompt=partial(blank_text, channels="caption_channels", masked=True),
    video=True,
)
