"""Qwen-Image, also Edit and Layered, whose references are routed with the rest
(diffusers/models/transformers/transformer_qwenimage.py).

With `zero_cond_t` the modulation has two rows for each sample, and `modulate_index` says which one
a token takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffcr.hosts.family import Family
from diffcr.hosts.grid import Grid
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.lora_targets import JOINT_ATTENTION
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.pipelines.qwen_image import QWEN_IMAGE_CALL

QWEN_IMAGE_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=(
        *("hidden_states", "encoder_hidden_states", "encoder_hidden_states_mask"),
        "modulate_index",
    ),
    stacked=("temb",),
    outputs=("encoder_hidden_states", "hidden_states"),
    token_inputs=(
        TokenInput("image_rotary_emb", keys=(0,), dims=(0,), shared=True),
        TokenInput("modulate_index"),
    ),
    first_linear="attn.to_q",
    mlp="img_mlp",
)


def _grid(transformer: Any, arguments: Mapping[str, Any]) -> Grid:
    """From the shapes that a call names; what follows the target's are references."""
    shapes = arguments["img_shapes"]
    target = shapes[0][0] if isinstance(shapes[0], list) else shapes[0]
    frames, rows, columns = target
    tokens: int = arguments["hidden_states"].shape[1]
    return Grid(rows, columns, frames, beside=tokens - frames * rows * columns)


QWEN_IMAGE = Family(
    name="qwen-image",
    transformer_class=(
        "diffusers.models.transformers.transformer_qwenimage.QwenImageTransformer2DModel"
    ),
    block_groups={"transformer_blocks": QWEN_IMAGE_BLOCK},
    timestep=NoiseScale(noisy=1),
    grid=_grid,
    lora_targets=(
        *JOINT_ATTENTION,
        *("img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"),
    ),
    call=QWEN_IMAGE_CALL,
)
