"""What a block gives for some of its tokens by its own dense forward: others masked as keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from diffcr.hosts.block_inputs import BlockInputs, BlockOutput, concatenated, sequence_of


class _Attentions:
    """Calls of `scaled_dot_product_attention`: their keys are noted.

    hidden: keys [1, M] bool of each call that are masked; None masks none.
    silent: whether all give zeros, so that rows stay apart.
    """

    def __init__(self, hidden: list[Tensor] | None = None, silent: bool = False) -> None:
        self.attend = functional.scaled_dot_product_attention
        self.keys: list[Tensor] = []
        self.hidden = hidden
        self.silent = silent

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        place = len(self.keys)
        self.keys.append(key.detach().clone())
        if self.silent:
            return torch.zeros_like(query)
        if self.hidden is None or not self.hidden[place].any():
            return self.attend(query, key, value, *args, **kwargs)
        if args:
            kwargs, args = {**kwargs, "attn_mask": args[0]}, args[1:]
        mask = kwargs.pop("attn_mask", None)
        shut = self.hidden[place][:, None, None, :]
        if mask is None:
            mask = ~shut
        elif mask.dtype == torch.bool:
            mask = mask & ~shut
        else:
            mask = mask.masked_fill(shut, float("-inf"))
        return self.attend(query, key, value, *args, attn_mask=mask, **kwargs)


@contextmanager
def _watching(attentions: _Attentions) -> Iterator[_Attentions]:
    """Within the context every fused attention goes through what is given."""
    functional.scaled_dot_product_attention = attentions
    try:
        yield attentions
    finally:
        functional.scaled_dot_product_attention = attentions.attend


def _without_attention(run: Callable[[BlockInputs], Any], inputs: BlockInputs) -> list[Tensor]:
    """Run a block whose attentions give zeros, so that its rows stay apart; their keys."""
    with _watching(_Attentions(silent=True)) as attentions:
        run(inputs)
    return attentions.keys


def _with_moved(inputs: BlockInputs, token: int) -> BlockInputs:
    """Inputs of a block with one of the routed tokens changed."""
    routed = inputs.routed.clone()
    routed[:, token] += 1 + torch.arange(routed.shape[-1]) % 3
    moved = inputs.with_routed(inputs.unchanged, routed)
    return inputs.with_sequence(sequence_of(inputs.layout, moved))


def masked_forward(
    run: Callable[[BlockInputs], Any], inputs: BlockInputs, dropped: Tensor
) -> BlockOutput:
    """The dense block with the tokens `dropped`, [B, N] bool, hidden from all attention.

    Samples pass one by one: Mochi's attention takes them so.
    """
    samples = torch.arange(len(dropped)).split(1)
    return concatenated(
        *(_masked_sample(run, inputs.of_samples(sample), dropped[sample]) for sample in samples)
    )


def _masked_sample(
    run: Callable[[BlockInputs], Any], inputs: BlockInputs, dropped: Tensor
) -> BlockOutput:
    """Where a token's key stands is found by moving the token."""
    plain = _without_attention(run, inputs)
    hidden = [torch.zeros(1, keys.shape[-2], dtype=torch.bool) for keys in plain]
    found = 0
    for token in range(inputs.tokens):
        other = _without_attention(run, _with_moved(inputs, token))
        for before, after, mask in zip(plain, other, hidden, strict=True):
            differs = (before != after).any(-1).any(1)
            assert differs.sum() <= 1, "a token moves the keys of others"
            mask |= differs & dropped[:, token, None]
            found += int(differs.sum())
    assert found, "no attention sees the tokens"
    with _watching(_Attentions(hidden)):
        return run(inputs)
