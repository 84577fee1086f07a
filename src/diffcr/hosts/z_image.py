"""Z-Image: one sequence of image and caption, each padded to a multiple of 32 rows
(diffusers/models/transformers/transformer_z_image.py).

Samples come in lists, and the timestep falls from 1 for a picture to 0 for noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffcr.hosts.family import Family
from diffcr.hosts.grid import Grid
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.pipelines.z_image import Z_IMAGE_CALL

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
    width=lambda config: int(config.dim),
    refuse=_refuse,
    lora_targets=("attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0"),
    call=Z_IMAGE_CALL,
)
