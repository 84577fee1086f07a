"""Kandinsky 5, whose latents have channels last
(diffusers/models/transformers/transformer_kandinsky.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.calls import with_no_given_frames
from diffcr.hosts.family import Family, Grid
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.prompt import Prompt, blank_text, encode_with

_PIXELS_PER_LATENT = 8

KANDINSKY5_BLOCK = BlockLayout(
    hidden_states="visual_embed",
    batched=("visual_embed", "text_embed", "time_embed", "rope"),
    token_inputs=(TokenInput("rope"),),
    refuses={"sparse_params": "sparse attention over squares of tokens"},
    first_linear="self_attention.to_query",
    mlp="feed_forward",
)


def _grid(transformer: Any, arguments: Mapping[str, Any]) -> Grid:
    _, frames, height, width, _ = arguments["hidden_states"].shape
    patch = transformer.config.patch_size
    return Grid(height // patch[1], width // patch[2], frames // patch[0])


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
    grid = _grid(transformer, arguments)
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


_ATTENTION = ("to_query", "to_key", "to_value", "out_layer")
KANDINSKY5 = Family(
    name="kandinsky5",
    transformer_class=(
        "diffusers.models.transformers.transformer_kandinsky.Kandinsky5Transformer3DModel"
    ),
    block_groups={"visual_transformer_blocks": KANDINSKY5_BLOCK},
    call_inputs=_inputs,
    encode_prompt=_encode,
    prediction=_prediction,
    refuse_training=_refuse_training,
    blank_prompt=partial(blank_text, channels="in_text_dim", pooled="in_text_dim2"),
    latent_channels=lambda config: int(config.out_visual_dim),
    video=True,
    grid=_grid,
    width=lambda config: int(config.model_dim),
    lora_targets=(
        *(f"self_attention.{layer}" for layer in _ATTENTION),
        *(f"cross_attention.{layer}" for layer in _ATTENTION),
        *("feed_forward.in_layer", "feed_forward.out_layer"),
    ),
)
