"""Krea 2: one sequence of text and image (diffusers/models/transformers/transformer_krea2.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.calls import masked_text_inputs, pack_latents
from diffcr.hosts.family import Family, Grid
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.packed import PACKED, grid_of_places, packed_grid
from diffcr.hosts.places import places
from diffcr.hosts.prompt import Prompt, of_seen_rows

KREA2_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "temb", "attention_mask"),
    rows="last",
    token_inputs=(
        TokenInput("image_rotary_emb", dims=(0,), shared=True),
        TokenInput("attention_mask", dims=(-1,)),
    ),
    first_linear="attn.to_q",
    mlp="ff",
)


def _read_grid(transformer: Any, arguments: Mapping[str, Any]) -> Grid:
    """The places of text rows are in front."""
    return grid_of_places(arguments["position_ids"][-arguments["hidden_states"].shape[1] :])


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    """All of the text is at the origin."""
    rows, columns = (side // 2 for side in latents.shape[2:])
    image = places(latents.device, 1, rows, columns).float()
    text = image.new_zeros(prompt.embeds.shape[1], 3)
    return {
        **masked_text_inputs(transformer, pack_latents(latents), timesteps, prompt, torch.bool),
        "position_ids": torch.cat([text, image]),
    }


def _blank_prompt(config: Any, text_tokens: int) -> Prompt:
    embeds = torch.zeros(1, text_tokens, config.num_text_layers, config.text_hidden_dim)
    return Prompt(embeds, torch.ones(1, text_tokens, dtype=torch.int64))


KREA2 = Family(
    name="krea2",
    transformer_class="diffusers.models.transformers.transformer_krea2.Krea2Transformer2DModel",
    block_groups={"transformer_blocks": KREA2_BLOCK},
    timestep=NoiseScale(noisy=1),
    call_inputs=_inputs,
    encode_prompt=of_seen_rows,
    blank_prompt=_blank_prompt,
    **PACKED,
    grid=packed_grid,
    read_grid=_read_grid,
    lora_targets=(
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_gate", "attn.to_out.0"),
        *("ff.gate", "ff.up", "ff.down"),
    ),
)
