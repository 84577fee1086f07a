"""PixArt-alpha and PixArt-Sigma.

A token carries its additive position embedding, so a subset of tokens needs nothing else. Blocks
are `BasicTransformerBlock` with `ada_norm_single`; their argument `timestep` is the projected
modulation [B, 6 D], not a timestep (diffusers/models/transformers/pixart_transformer_2d.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.family import Family
from diffcr.hosts.layout import AttentionWithMap, BlockLayout, PrunableUnits, TokenInput
from diffcr.hosts.prompt import Prompt, of_embeds_and_mask

# Of the autoencoder of every published model that takes the picture's size as a condition.
PIXELS_PER_LATENT = 8


def pixart_inputs(
    transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt
) -> dict[str, Any]:
    """As in diffusers' pipeline_pixart_alpha.py: the 1024 model is told the picture's size."""
    conditions: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
    if transformer.use_additional_conditions:
        height, width = (PIXELS_PER_LATENT * side for side in latents.shape[-2:])
        size = torch.tensor([[height, width]]).to(latents)
        conditions["resolution"] = size.expand(len(latents), 2)
        conditions["aspect_ratio"] = (size[:, :1] / size[:, 1:]).expand(len(latents), 1)
    return {
        "hidden_states": latents,
        "encoder_hidden_states": prompt.embeds,
        "encoder_attention_mask": prompt.mask,
        "timestep": timesteps,
        "added_cond_kwargs": conditions,
        "return_dict": False,
    }


def pixart_blank_prompt(config: Any, text_tokens: int) -> Prompt:
    """Embeddings of the width that captions have."""
    channels = config.caption_channels or config.cross_attention_dim
    return Prompt(torch.zeros(1, text_tokens, channels))


class _WatchedAttention:
    """An attention that remembers its maps; the module itself may be at work in other threads."""

    def __init__(self, attention: Any) -> None:
        self.attention = attention
        self.maps: list[Tensor] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.attention, name)

    def get_attention_scores(self, *args: Any, **kwargs: Any) -> Tensor:
        """As diffusers' `Attention.get_attention_scores`."""
        self.maps.append(self.attention.get_attention_scores(*args, **kwargs))
        return self.maps[-1]


def _attend_with_map(attention: Any, arguments: Mapping[str, Any]) -> AttentionWithMap:
    """diffusers' plain processor asks the module for its map, which the fused one never builds."""
    from diffusers.models.attention_processor import AttnProcessor

    watched = _WatchedAttention(attention)
    output: Tensor = AttnProcessor()(watched, **arguments)
    return AttentionWithMap(output, watched.maps[0].unflatten(0, (len(output), -1)))


def _heads(name: str, attention: str, of_text: bool = False) -> PrunableUnits:
    query, *keys_and_values = (f"{attention}.{layer}" for layer in ("to_q", "to_k", "to_v"))
    return PrunableUnits(
        name,
        rows=(query, *keys_and_values),
        columns=(f"{attention}.to_out.0",),
        of_text=tuple(keys_and_values) if of_text else (),
        heads=f"{attention}.heads",
        fused=f"{attention}.fused_projections",
    )


PIXART_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=(
        "hidden_states",
        "attention_mask",
        "encoder_hidden_states",
        "encoder_attention_mask",
        "timestep",
        "class_labels",
    ),
    attend_with_map=_attend_with_map,
    token_inputs=(TokenInput("attention_mask", dims=(-1,)),),
    self_attention="attn1",
    cross_attention="attn2",
    keys_and_values=("to_k", "to_v"),
    mlp="ff",
    prunable=(
        _heads("self_attention", "attn1"),
        _heads("cross_attention", "attn2", of_text=True),
        PrunableUnits("mlp", rows=("ff.net.0.proj",), columns=("ff.net.2",)),
    ),
)
SELF_ATTENTION_BLOCK = replace(
    PIXART_BLOCK,
    prunable=tuple(units for units in PIXART_BLOCK.prunable if units.name != "cross_attention"),
)
PIXART = Family(
    name="pixart",
    transformer_class=(
        "diffusers.models.transformers.pixart_transformer_2d.PixArtTransformer2DModel"
    ),
    block_groups={"transformer_blocks": PIXART_BLOCK},
    lora_targets=("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"),
    call_inputs=pixart_inputs,
    encode_prompt=of_embeds_and_mask,
    blank_prompt=pixart_blank_prompt,
)
