"""How Ideogram 4 is called (diffusers/pipelines/ideogram4/pipeline_ideogram4.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.hosts.pipelines.packed import PACKED_CALL, pack_latents, unpack_latents
from diffcr.hosts.pipelines.places import places
from diffcr.hosts.pipelines.prompt import Prompt, blank_text, of_rows

# Of the class's module: OUTPUT_IMAGE_INDICATOR, LLM_TOKEN_INDICATOR, SEQUENCE_PADDING_INDICATOR and
# IMAGE_POSITION_OFFSET.
IMAGE, TEXT = 2, 3
_NO_SEGMENT = -1
_IMAGE_START = 65536


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    """Rows of text hold no latents, those of the image no text."""
    if latents.is_meta:
        raise DiffCRError(
            f"operations of {type(transformer).__name__} cannot be counted: its forward depends on "
            "values in its inputs, and counting has shapes alone"
        )
    text = prompt.padded_in_front()
    tokens = pack_latents(latents).unflatten(2, (-1, 4)).transpose(2, 3).flatten(2)
    seen, image = text.seen, text.seen.new_ones(tokens.shape[:2], dtype=torch.int64)
    rows, columns = (side // 2 for side in latents.shape[2:])
    grid = places(latents.device, 1, rows, columns) + _IMAGE_START
    order = ((seen.cumsum(1) - 1) * seen)[..., None].expand(-1, -1, 3)
    return {
        "hidden_states": torch.cat([tokens.new_zeros(*seen.shape, tokens.shape[2]), tokens], dim=1),
        "timestep": timesteps,
        "encoder_hidden_states": torch.cat(
            [text.embeds, text.embeds.new_zeros(*image.shape, text.embeds.shape[2])], dim=1
        ),
        "position_ids": torch.cat([order, grid.expand(len(latents), -1, -1)], dim=1),
        "segment_ids": torch.cat([torch.where(seen, 1, _NO_SEGMENT), image], dim=1),
        "indicator": torch.cat([TEXT * seen, IMAGE * image], dim=1),
        "attention_kwargs": None,
        "return_dict": False,
    }


def _encode(pipe: Any, captions: Sequence[str], max_sequence_length: int) -> Prompt:
    """The pipeline encodes a text beside its picture, here of one token."""
    size = {"grid_h": 1, "grid_w": 1, "device": pipe._execution_device}
    try:
        embeds, *_, kinds = pipe.encode_prompt(
            list(captions), max_sequence_length=max_sequence_length, **size
        )
    except ValueError as error:
        raise DiffCRError(
            f"a caption is too long ({error}): shorten it or give a larger max_sequence_length"
        ) from error
    return of_rows([rows[kind == TEXT] for rows, kind in zip(embeds, kinds, strict=True)])


def _prediction(transformer: Any, output: Tensor, latents: Tensor) -> Tensor:
    """The pipeline takes the image's rows and turns the sign."""
    rows, columns = (side // 2 for side in latents.shape[2:])
    tokens = output[:, -rows * columns :].unflatten(2, (4, -1)).transpose(2, 3).flatten(2)
    return -unpack_latents(transformer, tokens, latents)


IDEOGRAM4_CALL = replace(
    PACKED_CALL,
    inputs=_inputs,
    encode_prompt=_encode,
    prediction=_prediction,
    blank_prompt=partial(blank_text, channels="llm_features_dim", masked=True),
    places_first=True,
)
