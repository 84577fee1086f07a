"""How a class of blocks takes its inputs, and what its parts are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from diffcr.core.select import gather_tokens
from diffcr.core.sequence import Where
from diffcr.errors import DiffCRError


@dataclass(frozen=True)
class AttentionWithMap:
    """What a self-attention gives when its map is wanted.

    Attributes:
        output: [B, N, D].
        attention: [B, heads, N, N], rows are queries and sum to 1.
    """

    output: Tensor
    attention: Tensor


@dataclass(frozen=True)
class PrunableUnits:
    """Equal parts of a block that can be taken out, heads or channels; all names are paths from it.

    Attributes:
        name: Of the part of the block.
        rows: Linear layers whose outputs are the units' values, one unit after another.
        columns: Linear layers whose inputs they are.
        of_text: Those of `rows` that compute text tokens.
        heads: Integer attribute with the number of heads; empty where the units are channels of the
            feed-forward.
        fused: Boolean attribute that says whether another layer computes in the place of `rows`.
    """

    name: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    of_text: tuple[str, ...] = ()
    heads: str = ""
    fused: str = ""


@dataclass(frozen=True)
class TokenInput:
    """An argument of a block, other than its hidden states, that holds one entry per row of the
    sequence: rotary tables, masks, modulations. It is gathered with the rows.

    A tensor that has one entry alone serves all rows and is left as it is.

    Attributes:
        argument: Its name.
        keys: Way to it through nested tuples and dicts; all tensors at its end are meant.
        dims: Token dimensions, negative ones count from the end.
        others: Where in it rows of another stream stand, such as those of the text in a table for
            joint attention: nowhere, before or after the sequence's.
        shared: Whether it has no batch dimension, so that samples that keep other tokens have to
            pass the block one by one.
        of_ndim: Number of dimensions of the tensors that are meant; any by default.
    """

    argument: str
    keys: tuple[int | str, ...] = ()
    dims: tuple[int, ...] = (1,)
    others: Literal["none", "before", "after"] = "none"
    shared: bool = False
    of_ndim: int | None = None

    def gathered(self, value: Tensor, rows: Tensor, length: int) -> Tensor:
        """The entries of `rows` [B, M] int64 of a sequence of `length` rows.

        Raises:
            DiffCRError: The tensor holds another number of entries.
        """
        if self.of_ndim is not None and value.dim() != self.of_ndim:
            return value
        for dim in self.dims:
            entries = value.shape[dim]
            if entries == 1 and length > 1:
                continue
            index = self._entries(rows, length, entries)
            if self.shared:
                assert len(index) == 1, "samples that keep other tokens share a table"
                value = value.index_select(dim, index[0])
            else:
                value = gather_tokens(value, index, dim)
        return value

    def _entries(self, rows: Tensor, length: int, entries: int) -> Tensor:
        if entries == length:
            return rows
        if entries < length or self.others == "none":
            raise DiffCRError(
                f"a block was given {self.argument} for {entries} rows and hidden states of "
                f"{length}: its family is written for another version of diffusers"
            )
        others = torch.arange(entries - length, device=rows.device).expand(len(rows), -1)
        if self.others == "before":
            return torch.cat([others, rows + (entries - length)], 1)
        return torch.cat([rows, others + length], 1)


@dataclass(frozen=True)
class BlockLayout:
    """How a class of blocks takes its inputs; part of a model family's adapter.

    Attributes:
        hidden_states: Name of the argument with the routed tokens, [B, S, D].
        batched: Arguments whose tensors' first dimension is the batch. Anything else is shared by
            samples.
        optional: Those of them that not every block of the class takes.
        rows: Where the N routed tokens lie in the S rows of `hidden_states`; the other rows are
            pinned: text, padding, references.
        outputs: What the block returns, in order, by the names of the arguments that it takes the
            place of; empty for the hidden states alone.
        token_inputs: Arguments with one entry per row.
        stacked: Arguments [2 B, ...], two entries for each sample: i and B + i; or [B, ...].
        counts: Arguments that hold the number of routed tokens.
        refuses: Arguments that have to be None, with what they are.
        self_attention: Attribute of the block's self-attention, whose first argument is [B, N, D];
            None where it attends to more than the hidden states.
        cross_attention: Attribute of its cross-attention, which may be None or missing.
        mlp: Path of the module whose output, [B, N, ...], scales what the block adds by its
            feed-forward: that itself, a norm behind it, or an activation before a linear layer;
            None where it has none of its own for the routed tokens.
        mlp_others: Where the feed-forward's rows stand that are not of the hidden states, such as
            those of the text.
        denoised_beside: Outputs other than the hidden states that the model denoises, too, such as
            those of audio.
        first_linear: Path of a linear layer that computes all rows of `hidden_states` once; empty
            where `self_attention` is named.
        prunable: What structured pruning takes units out of.
        keys_and_values: Attributes of the self-attention, layers from its input [B, N, D] to the
            tokens' keys and values as its processor calls them; empty where they cannot be kept.
        attend_with_map: From a self-attention and its arguments by name to its output and its map;
            None where there is no map.
    """

    hidden_states: str
    batched: tuple[str, ...]
    optional: tuple[str, ...] = ()
    rows: Where = "all"
    outputs: tuple[str, ...] = ()
    token_inputs: tuple[TokenInput, ...] = ()
    stacked: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()
    refuses: Mapping[str, str] = field(default_factory=dict)
    self_attention: str | None = None
    cross_attention: str | None = None
    mlp: str | None = None
    mlp_others: Literal["none", "before", "after"] = "none"
    denoised_beside: tuple[str, ...] = ()
    first_linear: str = ""
    prunable: tuple[PrunableUnits, ...] = ()
    keys_and_values: tuple[str, ...] = ()
    attend_with_map: Callable[[nn.Module, Mapping[str, Any]], AttentionWithMap] | None = None

    def __post_init__(self) -> None:
        if self.rows not in get_args(Where):
            raise DiffCRError(f"rows is {self.rows!r}: give one of {', '.join(get_args(Where))}")

    @property
    def shares_tables(self) -> bool:
        """Whether samples that keep other tokens have to pass the block one by one."""
        return any(value.shared for value in self.token_inputs)

    @property
    def arguments(self) -> set[str]:
        """Names of a block's arguments that are spoken of and that every block takes."""
        named = (self.hidden_states, *self.batched, *self.outputs, *self.stacked, *self.counts)
        spoken_of = {*named, *self.refuses, *(value.argument for value in self.token_inputs)}
        return spoken_of - {*self.optional}

    def first_layers(self, block: nn.Module) -> dict[str, nn.Linear]:
        """The first linear layer of each part of a block, which every row that the part computes
        passes, by its path from the block; self-attention first."""
        if self.first_linear:
            layer = block.get_submodule(self.first_linear)
            assert isinstance(layer, nn.Linear)
            return {self.first_linear: layer}
        layers = {}
        for name in (self.self_attention, self.cross_attention, self.mlp):
            part = None if name is None else getattr(block, name, None)
            if part is not None:
                linear = ((p, m) for p, m in part.named_modules() if isinstance(m, nn.Linear))
                path, layer = next(linear)
                layers[f"{name}.{path}"] = layer
        return layers

    def select_samples(self, arguments: Mapping[str, Any], samples: Tensor) -> dict[str, Any]:
        """The arguments of some samples of the batch, `samples` [B'] int64."""
        batch = arguments[self.hidden_states].shape[0]

        def select(value: Tensor) -> Tensor:
            return value.index_select(0, samples) if value.shape[0] > 1 else value

        def select_both(value: Tensor) -> Tensor:
            if value.shape[0] == batch:
                return select(value)
            return value.index_select(0, torch.cat([samples, samples + batch]))

        selected = dict(arguments)
        for name in self.batched:
            selected[name] = map_tensors(selected.get(name), select)
        for name in self.stacked:
            selected[name] = map_tensors(selected.get(name), select_both)
        return {name: value for name, value in selected.items() if name in arguments}

    def refuse(self, arguments: Mapping[str, Any]) -> None:
        """Raises DiffCRError where a block is given what it cannot be routed with."""
        for name, reason in self.refuses.items():
            if arguments.get(name) is not None:
                raise DiffCRError(f"{reason} ({name}) cannot be combined with routed tokens")

    def refuse_token_inputs(self, arguments: Mapping[str, Any], method: str) -> None:
        """Raises DiffCRError where a block gets more per token than its hidden states."""
        for value in self.token_inputs:
            if arguments.get(value.argument) is not None:
                raise DiffCRError(
                    f"{method} cannot join tokens that {value.argument} tells apart: call the "
                    "model without"
                )


def map_tensors(
    value: Any, change: Callable[[Tensor], Tensor], keys: tuple[int | str, ...] = ()
) -> Any:
    """A nest of tuples, lists and dicts with its tensors changed, those at the end of `keys`."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        chosen = keys[:1] or tuple(value)
        return {
            key: map_tensors(part, change, keys[1:]) if key in chosen else part
            for key, part in value.items()
        }
    if isinstance(value, (tuple, list)):
        chosen = keys[:1] or tuple(range(len(value)))
        changed = [
            map_tensors(part, change, keys[1:]) if place in chosen else part
            for place, part in enumerate(value)
        ]
        return tuple(changed) if isinstance(value, tuple) else changed
    return value
