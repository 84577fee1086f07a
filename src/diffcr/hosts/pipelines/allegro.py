"""How Allegro is called (diffusers/pipelines/allegro/pipeline_allegro.py)."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.grid import Grid, latents_grid
from diffcr.hosts.pipelines.call import PipelineCall
from diffcr.hosts.pipelines.prompt import Prompt, blank_text, of_embeds_and_mask
from diffcr.hosts.pipelines.text_inputs import masked_text_inputs


def _rotary_tables(config: Any, grid: Grid, device: torch.device) -> tuple[Any, Any]:
    """Cosines and sines of an axis each, and the tokens' places on them, [1, N] int64 each, as
    `_prepare_rotary_positional_embeddings` of the pipeline makes them."""
    from diffusers.models.embeddings import get_3d_rotary_pos_embed_allegro

    size = (grid.rows, grid.columns)
    scales = tuple(getattr(config, f"interpolation_scale_{axis}") for axis in "thw")
    *tables, frames, rows, columns = get_3d_rotary_pos_embed_allegro(
        embed_dim=config.attention_head_dim,
        crops_coords=((0, 0), size),
        grid_size=size,
        temporal_size=grid.frames,
        interpolation_scale=scales,
        device=device,
    )
    places = torch.cartesian_prod(frames.long(), rows.long(), columns.long())
    return tuple(tables), tuple(places.T.unsqueeze(1))


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    given = masked_text_inputs(transformer, latents, timesteps, prompt)
    grid = latents_grid(transformer, given)
    return {
        **given,
        "encoder_hidden_states": prompt.embeds.unsqueeze(1),
        "image_rotary_emb": _rotary_tables(transformer.config, grid, latents.device),
    }


ALLEGRO_CALL = PipelineCall(
    inputs=_inputs,
    encode_prompt=of_embeds_and_mask,
    blank_prompt=partial(blank_text, channels="caption_channels", masked=True),
    video=True,
)
