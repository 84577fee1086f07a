"""How Z-Image is called (diffusers/pipelines/z_image/pipeline_z_image.py)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.pipelines.call import PipelineCall
from diffcr.hosts.pipelines.prompt import Prompt, blank_text, of_list


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    """Captions without their padding, pictures of one frame each."""
    captions: list[Tensor] = list(prompt.embeds)
    if prompt.mask is not None:
        captions = [rows[seen] for rows, seen in zip(captions, prompt.mask.bool(), strict=True)]
    return {
        "x": list(latents.unsqueeze(2)),
        "t": timesteps,
        "cap_feats": captions,
        "return_dict": False,
    }


def _prediction(transformer: Any, output: list[Tensor], latents: Tensor) -> Tensor:
    """The pipeline turns the sign."""
    return -torch.stack(output).squeeze(2)


Z_IMAGE_CALL = PipelineCall(
    inputs=_inputs,
    encode_prompt=of_list,
    prediction=_prediction,
    blank_prompt=partial(blank_text, channels="cap_feat_dim"),
    patch=lambda config: (1, config.all_patch_size[0], config.all_patch_size[0]),
)
