"""The map of an attention of diffusers, beside its output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from diffcr.hosts.layout import AttentionWithMap


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


def attend_with_map(attention: Any, arguments: Mapping[str, Any]) -> AttentionWithMap:
    """diffusers' plain processor asks the module for its map, which the fused one never builds.

    Args:
        attention: A self-attention of diffusers' class `Attention`.
        arguments: Of its forward, by name.
    """
    from diffusers.models.attention_processor import AttnProcessor

    watched = _WatchedAttention(attention)
    output: Tensor = AttnProcessor()(watched, **arguments)
    return AttentionWithMap(output, watched.maps[0].unflatten(0, (len(output), -1)))
