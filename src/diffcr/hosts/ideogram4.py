"""Ideogram 4: one sequence of padding, text and image, whose rows say what they are
(diffusers/models/transformers/transformer_ideogram4.py).

The timestep falls from 1 for a picture to 0 for noise. A pipeline has a second transformer without
text, `unconditional_transformer`: attach to it as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.hosts.calls import pack_latents, unpack_latents
from diffcr.hosts.family import Family, Grid, packed_patch
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.packed import grid_of_places
from diffcr.hosts.places import places
from diffcr.hosts.prompt import Prompt, blank_text, of_rows

# Of the class's module: OUTPUT_IMAGE_INDICATOR, LLM_TOKEN_INDICATOR, SEQUENCE_PADDING_INDICATOR and
# IMAGE_POSITION_OFFSET.
_IMAGE, _TEXT = 2, 3
_NO_SEGMENT = -1
_IMAGE_START = 65536

IDEOGRAM4_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "attention_mask", "image_rotary_emb", "adaln_input"),
    rows="last",
    token_inputs=(
        TokenInput("attention_mask", dims=(-2, -1)),
        TokenInput("image_rotary_emb"),
        TokenInput("adaln_input"),
    ),
    first_linear="attention.to_q",
    # A norm of the feed-forward's output undoes what scales that.
    mlp="ffn_norm2",
)


def _grid(transformer: Any, arguments: Mapping[str, Any]) -> Grid:
    """The image's rows, which nothing but their indicator tells: an accelerator is waited for."""
    image = (arguments["indicator"] == _IMAGE).cpu()
    tokens = int(image[0].sum())
    if int(image.sum()) != len(image) * tokens or not image[:, image.shape[1] - tokens :].all():
        raise DiffCRError("the images of one call have to be of one size and behind the text")
    return Grid(0, 0, beside=tokens)


def _read_grid(transformer: Any, arguments: Mapping[str, Any]) -> Grid:
    tokens = _grid(transformer, arguments).tokens
    return grid_of_places(arguments["position_ids"][:, -tokens:])


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
        "indicator": torch.cat([_TEXT * seen, _IMAGE * image], dim=1),
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
    return of_rows([rows[kind == _TEXT] for rows, kind in zip(embeds, kinds, strict=True)])


def _prediction(transformer: Any, output: Tensor, latents: Tensor) -> Tensor:
    """The pipeline takes the image's rows and turns the sign."""
    rows, columns = (side // 2 for side in latents.shape[2:])
    tokens = output[:, -rows * columns :].unflatten(2, (4, -1)).transpose(2, 3).flatten(2)
    return -unpack_latents(transformer, tokens, latents)


IDEOGRAM4 = Family(
    name="ideogram4",
    transformer_class=(
        "diffusers.models.transformers.transformer_ideogram4.Ideogram4Transformer2DModel"
    ),
    block_groups={"layers": IDEOGRAM4_BLOCK},
    timestep=NoiseScale(clean=1, noisy=0),
    call_inputs=_inputs,
    encode_prompt=_encode,
    prediction=_prediction,
    blank_prompt=partial(blank_text, channels="llm_features_dim", masked=True),
    latent_channels=lambda config: int(config.in_channels) // 4,
    patch=packed_patch,
    places_first=True,
    grid=_grid,
    read_grid=_read_grid,
    lora_targets=("to_q", "to_k", "to_v", "to_out.0", "w1", "w2", "w3"),
)
