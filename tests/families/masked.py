"""What a block gives for some of its tokens by its own dense forward: others masked as keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from diffcr.hosts.block_inputs import BlockInputs


class _Attentions:
    """Calls of `scaled_dot_product_attention`, their keys noted or masked."""

    def __init__(self) -> None:
        self.attend = functional.scaled_dot_product_attention
        self.keys: list[Tensor] = []
        self.hidden: list[Tensor | None] | None = None

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        place = len(self.keys)
        self.keys.append(key.detach().clone())
        if self.hidden is None or self.hidden[place] is None:
            return self.attend(query, key, value, *args, **kwargs)
        hidden = self.hidden[place]
        assert hidden is not None
        if args:
            kwargs, args = {**kwargs, "attn_mask": args[0]}, args[1:]
        mask = kwargs.pop("attn_mask", None)
        shut = hidden[:, None, None, :]
        if mask is None:
            mask = ~shut
        elif mask.dtype == torch.bool:
            mask = mask & ~shut
        else:
            mask = mask.masked_fill(shut, float("-inf"))
        return self.attend(query, key, value, *args, attn_mask=mask, **kwargs)


@contextmanager
def watching_attention() -> Iterator[_Attentions]:
    """Within the context every fused attention goes through what is yielded."""
    watching = _Attentions()
    functional.scaled_dot_product_attention = watching
    try:
        yield watching
    finally:
        functional.scaled_dot_product_attention = watching.attend


def masked_forward(
    run: Callable[[dict[str, Any]], Any], inputs: BlockInputs, dropped: Tensor
) -> Any:
    """The dense block with the tokens `dropped`, [B, N] bool, hidden from all attention.

    Where a token's key stands is found by moving the token.
    """
    with watching_attention() as plain:
        run(inputs.arguments)
    hidden: list[Tensor | None] = [
        torch.zeros(len(dropped), keys.shape[-2], dtype=torch.bool) for keys in plain.keys
    ]
    moved = [False] * len(hidden)
    for token in range(inputs.tokens):
        routed = inputs.routed.clone()
        routed[:, token] += 1 + torch.arange(routed.shape[-1]) % 3
        sequence = inputs.with_routed(inputs.unchanged, routed)
        at = (
            sequence
            if isinstance(sequence, Tensor)
            else sequence[inputs.layout.outputs.index(inputs.layout.hidden_states)]
        )
        with watching_attention() as other:
            run(inputs.with_sequence(at).arguments)
        # A token moves its own key in every attention over the sequence; where it moves all, the
        # keys are made of results of such an attention.
        for place, (before, after) in enumerate(zip(plain.keys, other.keys, strict=True)):
            differs = (before != after).any(-1).any(1)
            if differs.sum(1).max() == 1:
                moved[place] = True
                mask = hidden[place]
                assert mask is not None
                mask |= differs & dropped[:, token, None]
    hidden = [mask if moves else None for mask, moves in zip(hidden, moved, strict=True)]
    with watching_attention() as masked:
        masked.hidden = hidden
        return run(inputs.arguments)
