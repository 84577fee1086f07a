"""How CogVideoX is called (diffusers/pipelines/cogvideo/pipeline_cogvideox.py)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.grid import Grid, frames_first_grid
from diffcr.hosts.pipelines.call import PipelineCall
from diffcr.hosts.pipelines.given_frames import given_beside
from diffcr.hosts.pipelines.prompt import Prompt, blank_text, of_embeds
from diffcr.hosts.pipelines.text_inputs import text_inputs


def _rotary_tables(config: Any, grid: Grid, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines [N, D], as `_prepare_rotary_positional_embeddings` of the pipeline makes
    them: for the published size in version 1, for the call's own in 1.5."""
    from diffusers.models.embeddings import get_3d_rotary_pos_embed
    from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

    size = (grid.rows, grid.columns)
    columns, rows = (
        side // config.patch_size for side in (config.sample_width, config.sample_height)
    )
    if config.patch_size_t is None:
        region = get_resize_crop_region_for_grid(size, columns, rows)
        options: dict[str, Any] = {"crops_coords": region}
    else:
        options = {"crops_coords": None, "grid_type": "slice", "max_size": (rows, columns)}
    cosines, sines = get_3d_rotary_pos_embed(
        config.attention_head_dim,
        grid_size=size,
        temporal_size=grid.frames,
        device=device,
        **options,
    )
    return cosines, sines


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    config = transformer.config
    given = text_inputs(transformer, latents.transpose(1, 2), timesteps, prompt)
    rotary = config.use_rotary_positional_embeddings
    grid = frames_first_grid(transformer, given)
    given["image_rotary_emb"] = _rotary_tables(config, grid, latents.device) if rotary else None
    # Of image to video alone.
    return {**given, "ofs": latents.new_full((1,), 2.0)} if config.ofs_embed_dim else given


def _prediction(transformer: Any, output: Tensor, latents: Tensor) -> Tensor:
    return output.transpose(1, 2)


COGVIDEOX_CALL = PipelineCall(
    inputs=_inputs,
    encode_prompt=of_embeds,
    prediction=_prediction,
    refuse_training=given_beside,
    blank_prompt=partial(blank_text, channels="text_embed_dim"),
    video=True,
)
