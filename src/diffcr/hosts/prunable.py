"""Units of pruning of diffusers' `Attention` and `FeedForward`."""

from __future__ import annotations

from diffcr.hosts.layout import PrunableUnits

FEED_FORWARD_CHANNELS = PrunableUnits("mlp", rows=("ff.net.0.proj",), columns=("ff.net.2",))


def attention_heads(name: str, attention: str, of_text: bool = False) -> PrunableUnits:
    """The heads of an attention.

    Args:
        name: Of the part of the block.
        attention: Path of the attention from the block.
        of_text: Whether its keys and values are those of text tokens.
    """
    query, *keys_and_values = (f"{attention}.{layer}" for layer in ("to_q", "to_k", "to_v"))
    return PrunableUnits(
        name,
        rows=(query, *keys_and_values),
        columns=(f"{attention}.to_out.0",),
        of_text=tuple(keys_and_values) if of_text else (),
        heads=f"{attention}.heads",
        fused=f"{attention}.fused_projections",
    )
