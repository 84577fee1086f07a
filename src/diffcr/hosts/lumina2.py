"""Lumina 2: a sample's image behind its own text, then padding, in one sequence
(diffusers/models/transformers/transformer_lumina2.py).

The timestep falls from 1 for a picture to 0 for noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.pipelines.lumina2 import LUMINA2_CALL

# A norm of the feed-forward's output undoes what scales that.
LUMINA2_REFINER = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "attention_mask", "image_rotary_emb", "temb"),
    token_inputs=(TokenInput("attention_mask"), TokenInput("image_rotary_emb")),
    first_linear="attn.to_q",
    mlp="ffn_norm2",
)
LUMINA2_BLOCK = replace(LUMINA2_REFINER, rows="per-sample")


def _starts(transformer: Any, arguments: Mapping[str, Any]) -> Tensor:
    starts: Tensor = arguments["encoder_attention_mask"].sum(1)
    return starts


LUMINA2 = Family(
    name="lumina2",
    transformer_class=(
        "diffusers.models.transformers.transformer_lumina2.Lumina2Transformer2DModel"
    ),
    block_groups={"noise_refiner": LUMINA2_REFINER, "layers": LUMINA2_BLOCK},
    timestep=NoiseScale(clean=1, noisy=0),
    width=lambda config: int(config.hidden_size),
    starts=_starts,
    lora_targets=("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
    call=LUMINA2_CALL,
)
