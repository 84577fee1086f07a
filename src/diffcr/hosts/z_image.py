"""Z-Image: one sequence of image and caption, each padded to a multiple of 32 rows
(diffusers/models/transformers/transformer_z_image.py).

Samples come in lists, and the timestep falls from 1 for a picture to 0 for noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.family import Family, Grid
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.prompt import Prompt, blank_text, of_list

Z_IMAGE_BLOCK = BlockLayout(
    hidden_states="x",
    batched=("x", "attn_mask", "freqs_cis", "adaln_input"),
    rows="first",
    token_inputs=(TokenInput("attn_mask"), TokenInput("freqs_cis")),
    refuses={"noise_mask": "Omni's mixture of clean and noisy pictures"},
    first_linear="attention.to_q",
    # A norm of the feed-forward's output undoes what scales that.
    mlp="ffn_norm2",
)


def _grid(transformer: Any, arguments: Mapping[str, Any]) -> Grid:
    _, frames, height, width = arguments["x"][0].shape
    patch, frame_patch = arguments.get("patch_size", 2), arguments.get("f_patch_size", 1)
    return Grid(height // patch, width // patch, frames // frame_patch)


def _refuse(config: Any, arguments: Mapping[str, Any]) -> str | None:
    shapes = {sample.shape for sample in arguments.get("x", ()) if hasattr(sample, "shape")}
    if len(shapes) > 1:
        return "samples of one call have to be of one size"
    return None


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


Z_IMAGE = Family(
    name="z-image",
    transformer_class=(
        "diffusers.models.transformers.transformer_z_image.ZImageTransformer2DModel"
    ),
    block_groups={"noise_refiner": Z_IMAGE_BLOCK, "layers": Z_IMAGE_BLOCK},
    timestep=NoiseScale("t", clean=1, noisy=0),
    latents="x",
    conditioning="cap_feats",
    grid=_grid,
    call_inputs=_inputs,
    encode_prompt=of_list,
    prediction=_prediction,
    blank_prompt=partial(blank_text, channels="cap_feat_dim"),
    patch=lambda config: (1, config.all_patch_size[0], config.all_patch_size[0]),
    width=lambda config: int(config.dim),
    refuse=_refuse,
    lora_targets=("attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0"),
)
