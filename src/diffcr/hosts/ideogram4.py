"""Ideogram 4: one sequence of padding, text and image, whose rows say what they are
(diffusers/models/transformers/transformer_ideogram4.py).

The timestep falls from 1 for a picture to 0 for noise. A pipeline has a second transformer without
text, `unconditional_transformer`: attach to it as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffcr.errors import DiffCRError
from diffcr.hosts.family import Family
from diffcr.hosts.grid import Grid, grid_of_places
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.pipelines.ideogram4 import IDEOGRAM4_CALL, IMAGE

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
    image = (arguments["indicator"] == IMAGE).cpu()
    tokens = int(image[0].sum())
    if int(image.sum()) != len(image) * tokens or not image[:, image.shape[1] - tokens :].all():
        raise DiffCRError("the images of one call have to be of one size and behind the text")
    return Grid(0, 0, beside=tokens)


def _read_grid(transformer: Any, arguments: Mapping[str, Any]) -> Grid:
    tokens = _grid(transformer, arguments).tokens
    return grid_of_places(arguments["position_ids"][:, -tokens:])


IDEOGRAM4 = Family(
    name="ideogram4",
    transformer_class=(
        "diffusers.models.transformers.transformer_ideogram4.Ideogram4Transformer2DModel"
    ),
    block_groups={"layers": IDEOGRAM4_BLOCK},
    timestep=NoiseScale(clean=1, noisy=0),
    grid=_grid,
    read_grid=_read_grid,
    lora_targets=("to_q", "to_k", "to_v", "to_out.0", "w1", "w2", "w3"),
    call=IDEOGRAM4_CALL,
)
