"""How Kandinsky 5 is called (diffusers/pipelines/kandinsky5/pipeline_kandinsky{,_t2i}.py)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.grid import Grid, channels_last_grid
from diffcr.hosts.pipelines.call import PipelineCall
from diffcr.hosts.pipelines.given_frames import with_no_given_frames
from diffcr.hosts.pipelines.prompt import Prompt, blank_text, encode_with

_PIXELS_PER_LATENT = 8


def _scale_of_places(grid: Grid, config: Any) -> tuple[float, float, float]:
    """Of the rotary tables: `_get_scale_factor` of the pipeline of videos, by their size in pixels,
    and what that of pictures has, whose models alone take no given frames."""
    if grid.frames == 1 and not config.visual_cond:
        return 1.0, 1.0, 1.0
    _, rows, columns = config.patch_size
    sides = (_PIXELS_PER_LATENT * rows * grid.rows, _PIXELS_PER_LATENT * columns * grid.columns)
    return (1, 2, 2) if all(480 <= side <= 854 for side in sides) else (1, 3.16, 3.16)


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    """Its blocks see a caption's padding: as much as the longest of the batch has."""
    config, device = transformer.config, latents.device
    given = with_no_given_frames(latents) if config.visual_cond else latents
    texts = Prompt.concatenated([prompt]).embeds
    arguments = {"hidden_states": given.permute(0, 2, 3, 4, 1), "encoder_hidden_states": texts}
    grid = channels_last_grid(transformer, arguments)
    sides = (grid.frames, grid.rows, grid.columns)
    return {
        **arguments,
        "timestep": timesteps,
        "pooled_projections": prompt.pooled,
        "visual_rope_pos": [torch.arange(side, device=device) for side in sides],
        "text_rope_pos": torch.arange(texts.shape[1], device=device),
        "scale_factor": _scale_of_places(grid, config),
        "sparse_params": None,
        # Without, it gives no tuple.
        "return_dict": True,
    }


def _prediction(transformer: Any, output: Tensor, latents: Tensor) -> Tensor:
    return output.permute(0, 4, 1, 2, 3)


def _encode(pipe: Any, captions: Sequence[str], max_sequence_length: int) -> Prompt:
    embeds, pooled, ends = encode_with(pipe, captions, max_sequence_length)
    places = torch.arange(embeds.shape[1], device=embeds.device)
    return Prompt(embeds, (places < ends.diff()[:, None]).long(), pooled)


def _refuse_training(config: Any) -> str | None:
    if config.attention_type == "nabla":
        return "its pipeline computes sparse attention over squares of tokens"
    return None


KANDINSKY5_CALL = PipelineCall(
    inputs=_inputs,
    encode_prompt=_encode,
    prediction=_prediction,
    refuse_training=_refuse_training,
    blank_prompt=partial(blank_text, channels="in_text_dim", pooled="in_text_dim2"),
    latent_channels=lambda config: int(config.out_visual_dim),
    video=True,
)
