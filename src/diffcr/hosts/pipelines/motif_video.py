"""How Motif-Video is called (diffusers/pipelines/motif_video/pipeline_motif_video.py)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.pipelines.call import PipelineCall
from diffcr.hosts.pipelines.given_frames import with_no_given_frames
from diffcr.hosts.pipelines.prompt import Prompt, blank_text, of_tensors
from diffcr.hosts.pipelines.text_inputs import masked_text_inputs


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    beside = with_no_given_frames(latents)
    return masked_text_inputs(transformer, beside, timesteps, prompt, torch.bool)


MOTIF_VIDEO_CALL = PipelineCall(
    inputs=_inputs,
    encode_prompt=partial(of_tensors, names=("embeds", "", "mask")),
    blank_prompt=partial(blank_text, channels="text_embed_dim", masked=True),
    latent_channels=lambda config: int(config.out_channels),
    video=True,
)
