"""What a transformer is told of a prompt, as its pipeline's own `encode_prompt` gives it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

_EXTRA = "extra."


@dataclass(frozen=True)
class Prompt:
    """Encoded prompts of B samples.

    Attributes:
        embeds: [B, T, D]; [B, T, L, D] of L layers of a text encoder; [B, T] int64, tokens, for a
            model that embeds them itself; [B] int64, classes, for a model that is told classes in
            place of texts.
        mask: [B, T], 1 for a token of the prompt, 0 for padding that the model does not see; None
            where it sees everything.
        pooled: [B, P], of the whole prompt; None for models without.
        extra: What else a family needs, by its own names, [B, ...] each.
    """

    embeds: Tensor
    mask: Tensor | None = None
    pooled: Tensor | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.embeds)

    def __getitem__(self, rows: Any) -> Prompt:
        """Those of some rows: a slice, or indices [b] int64."""
        return Prompt.of_tensors({name: t[rows] for name, t in self.tensors().items()})

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Prompt:
        """On a device; what is floating-point in `dtype`, where one is given."""
        moved = {
            name: tensor.to(device, dtype if tensor.is_floating_point() else None)
            for name, tensor in self.tensors().items()
        }
        return Prompt.of_tensors(moved)

    def tensors(self) -> dict[str, Tensor]:
        """By name, without what is None: what `of_tensors` makes a prompt of."""
        named = {"embeds": self.embeds, "mask": self.mask, "pooled": self.pooled}
        extra = {_EXTRA + name: tensor for name, tensor in self.extra.items()}
        return {name: t for name, t in named.items() if t is not None} | extra

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> Prompt:
        """From tensors by name."""
        return cls(
            tensors["embeds"],
            tensors.get("mask"),
            tensors.get("pooled"),
            {n.removeprefix(_EXTRA): t for n, t in tensors.items() if n.startswith(_EXTRA)},
        )

    def padded_in_front(self) -> PaddedText:
        """The embeddings with each sample's padding in front of its tokens."""
        embeds, mask = self.embeds, self.mask
        seen = embeds.new_ones(embeds.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
        order = seen.long().argsort(dim=1, stable=True)
        rows = order.view(*order.shape, *[1] * (embeds.dim() - 2)).expand_as(embeds)
        return PaddedText(embeds.gather(1, rows), seen.gather(1, order))

    @classmethod
    def concatenated(cls, prompts: Sequence[Prompt]) -> Prompt:
        """All samples of some prompts, with as many tokens as there are up to the last that is
        seen. Shorter ones are padded, so that there has to be a mask where lengths differ."""
        masks = [prompt.mask for prompt in prompts if prompt.mask is not None]
        longest = max((_seen_length(mask) for mask in masks), default=None)
        joined = {
            name: torch.cat(
                [_of_length(prompt.tensors()[name], name, longest) for prompt in prompts]
            )
            for name in prompts[0].tensors()
        }
        return cls.of_tensors(joined)


@dataclass(frozen=True)
class PaddedText:
    """Encoded prompts whose padding is in front.

    Attributes:
        embeds: As a prompt's.
        seen: [B, T] bool, False for padding.
    """

    embeds: Tensor
    seen: Tensor


def _seen_length(mask: Tensor) -> int:
    """Tokens up to the last one that a sample of a mask [B, T] sees."""
    seen = mask.bool().any(0).nonzero()
    return int(seen.max()) + 1 if len(seen) else 0


def _of_length(tensor: Tensor, name: str, length: int | None) -> Tensor:
    if length is None or name not in ("embeds", "mask"):
        return tensor
    missing = max(0, length - tensor.shape[1])
    widths = [0] * (2 * (tensor.dim() - 2)) + [0, missing]
    return pad(tensor, widths)[:, :length].contiguous()


def blank_text(
    config: Any, text_tokens: int, channels: str, masked: bool = False, pooled: str | None = None
) -> Prompt:
    """Zeros [1, T, D], whose width the configuration calls `channels`; all seen, where there is a
    mask; beside them, where `pooled` names a width, zeros [1, P] for the whole prompt."""
    seen = torch.ones(1, text_tokens, dtype=torch.int64) if masked else None
    whole = None if pooled is None else torch.zeros(1, config[pooled])
    return Prompt(torch.zeros(1, text_tokens, config[channels]), seen, whole)


@torch.no_grad()
def encode_with(
    pipe: Any, captions: Sequence[str], max_sequence_length: int, **options: Any
) -> tuple[Any, ...]:
    """What a pipeline's own `encode_prompt` gives for prompts without guidance.

    Args:
        pipe: A text-to-image or text-to-video pipeline of diffusers.
        captions: At least one.
        max_sequence_length: Tokens that a caption is cut to, where the pipeline takes it.
        options: Further arguments of its `encode_prompt`.
    """
    accepted = inspect.signature(pipe.encode_prompt).parameters
    given = {
        "do_classifier_free_guidance": False,
        "device": pipe._execution_device,
        "max_sequence_length": max_sequence_length,
        "tokenizer_max_length": max_sequence_length,
        "prompt_2": None,
        "prompt_3": None,
        "batch_size": len(captions),
    }
    named = {name: value for name, value in given.items() if name in accepted}
    found: tuple[Any, ...] = pipe.encode_prompt(list(captions), **named, **options)
    return found


def of_embeds(pipe: Any, captions: Sequence[str], max_sequence_length: int) -> Prompt:
    """Of a pipeline that gives embeddings first and needs nothing else of them."""
    return Prompt(encode_with(pipe, captions, max_sequence_length)[0])


def of_tensors(
    pipe: Any, captions: Sequence[str], max_sequence_length: int, names: Sequence[str]
) -> Prompt:
    """Of a pipeline that gives several tensors, whose names in order are those of `Prompt.tensors`,
    or "" for what is not needed. Masks become int64."""
    found = zip(names, encode_with(pipe, captions, max_sequence_length), strict=False)
    named = {name: t.long() if name.endswith("mask") else t for name, t in found if name}
    return Prompt.of_tensors(named)


def of_embeds_and_mask(pipe: Any, captions: Sequence[str], max_sequence_length: int) -> Prompt:
    """Of a pipeline that gives embeddings and then their mask, or None where all are tokens."""
    embeds, mask, *_ = encode_with(pipe, captions, max_sequence_length)
    every = torch.ones(embeds.shape[:2], dtype=torch.int64, device=embeds.device)
    return Prompt(embeds, every if mask is None else mask)


def of_list(pipe: Any, captions: Sequence[str], max_sequence_length: int) -> Prompt:
    """Of a pipeline that gives a list of embeddings [T_i, D], which are padded to the longest."""
    embeds, *_ = encode_with(pipe, captions, max_sequence_length)
    return of_rows(embeds)


def of_seen_rows(pipe: Any, captions: Sequence[str], max_sequence_length: int) -> Prompt:
    """Of a pipeline that gives embeddings and their mask, of a model to which the order of a
    prompt's tokens says nothing: those that are seen, wherever the padding was."""
    embeds, mask, *_ = encode_with(pipe, captions, max_sequence_length)
    return of_rows([e[seen] for e, seen in zip(embeds, mask.bool(), strict=True)])


def of_rows(prompts: Sequence[Tensor]) -> Prompt:
    """Prompts of T_i rows each, [T_i, ...], padded behind to the longest."""
    samples = [Prompt(r[None], r.new_ones(1, len(r), dtype=torch.int64)) for r in prompts]
    return Prompt.concatenated(samples)
