"""The arguments of one call of a block, and what it returns, as methods see them.

Shapes: B samples, S rows of the block's sequence, N routed tokens, K kept ones, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffcr.core.select import gather_tokens, put_back, token_rows
from diffcr.core.sequence import Where, routed_rows, with_pinned_rows, with_routed_rows
from diffcr.errors import DiffCRError
from diffcr.hosts.layout import BlockLayout, map_tensors

# What a block returns: its hidden states, or a tuple with those of its streams.
BlockOutput = Any


@dataclass(frozen=True)
class BlockInputs:
    """Arguments of a block's forward.

    Attributes:
        layout: How the block takes them.
        arguments: By name.
        tokens: N.
        starts: First routed row of every sample, [B] int64, where they differ; else None.
    """

    layout: BlockLayout
    arguments: dict[str, Any]
    tokens: int
    starts: Tensor | None = None

    @property
    def sequence(self) -> Tensor:
        """The hidden states, [B, S, D]."""
        sequence: Tensor = self.arguments[self.layout.hidden_states]
        return sequence

    @property
    def routed(self) -> Tensor:
        """The routed tokens, [B, N, D]."""
        return routed_rows(self.sequence, self.tokens, self.layout.rows, self.starts)

    @property
    def unchanged(self) -> BlockOutput:
        """What a block returns that does nothing."""
        if not self.layout.outputs:
            return self.sequence
        return tuple(self.arguments[name] for name in self.layout.outputs)

    def bypassed(self, bypass: Tensor | None) -> BlockOutput:
        """What a block returns that computes nothing; `bypass` as in `run_kept`."""
        return self.replaced(self.unchanged, self._bypassed(bypass))

    def _bypassed(self, bypass: Tensor | None) -> Tensor:
        if bypass is None:
            return self.sequence
        return self._with_routed(self.sequence, self.routed + bypass)

    def of_samples(self, samples: Tensor) -> BlockInputs:
        """Those of some samples of the batch, `samples` [B'] int64."""
        starts = None if self.starts is None else self.starts.index_select(0, samples)
        arguments = self.layout.select_samples(self.arguments, samples)
        return replace(self, arguments=arguments, starts=starts)

    def with_sequence(self, sequence: Tensor) -> BlockInputs:
        """The same with other hidden states, [B, S, D]."""
        return replace(self, arguments={**self.arguments, self.layout.hidden_states: sequence})

    def with_whole_rows(self) -> BlockInputs:
        """The same with each row of the hidden states in one piece. Hosts embed patches by a
        convolution and hand them on transposed, where whole tokens move many times as slowly."""
        sequence = self.sequence
        return self if sequence.is_contiguous() else self.with_sequence(sequence.contiguous())

    def rows_of(self, indices: Tensor) -> Tensor:
        """Rows of the sequence [B, S - N + K] that a block computes with the tokens at `indices`
        [B, K] int64: those and all pinned ones."""
        length = self.sequence.shape[1]
        return with_pinned_rows(indices, length, self.tokens, self.layout.rows, self.starts)

    def at_rows(self, rows: Tensor, sequence: Tensor) -> dict[str, Any]:
        """The arguments with `rows` [B, M] int64 alone, whose hidden states are `sequence`
        [B, M, D]."""
        layout, length = self.layout, self.sequence.shape[1]
        selected = {**self.arguments, layout.hidden_states: sequence}
        for value in layout.token_inputs:
            if value.argument in selected:
                gather = partial(value.gathered, rows=rows, length=length)
                nest = selected[value.argument]
                selected[value.argument] = map_tensors(nest, gather, value.keys)
        for name in layout.counts:
            selected[name] = self.tokens - length + rows.shape[1]
        return selected

    def run_kept(
        self,
        indices: Tensor,
        run: Callable[[dict[str, Any]], BlockOutput],
        change: Callable[[Tensor, Tensor], Tensor],
        bypass: Tensor | None = None,
        remembers: bool = False,
    ) -> BlockOutput:
        """A block on some tokens and all pinned rows; the other tokens bypass it.

        Args:
            indices: [B, K] int64, the tokens.
            run: The block.
            change: What becomes of the tokens before and after the block, [B, K, D] each.
            bypass: What is added to a token that bypasses it, [B, N, D]; None for nothing.
            remembers: Whether `bypass` takes what is added to the others, in place.
        """
        rows = self.rows_of(indices)
        places = token_rows(rows, self.sequence.shape[1])
        before = gather_tokens(self.sequence, rows, rows=places)
        output = run(self.at_rows(rows, before))
        after, kept = sequence_of(self.layout, output), indices.shape[1]
        earlier = self._kept(before, kept)
        updated = change(earlier, self._kept(after, kept))
        after = with_routed_rows(after, updated, self._kept_where, None)
        everything = put_back(self._bypassed(bypass), places, after, owned=bypass is not None)
        if remembers:
            assert bypass is not None
            held = places if rows.shape == indices.shape else token_rows(indices, self.tokens)
            added = (updated - earlier).detach().to(bypass.dtype)
            bypass.flatten(0, 1).index_copy_(0, held, added.flatten(0, 1))
        return self.replaced(output, everything)

    def over_rows(self, values: Tensor) -> Tensor:
        """One value for each row of the sequence that a block computes with K tokens, K <= N: those
        of the tokens, `values` [B, K], and 1 for pinned ones."""
        tokens, count = self.tokens, values.shape[1]
        ones = values.new_ones(len(values), self.sequence.shape[1] - tokens + count, 1)
        where, starts = self._kept_where, None
        if count == tokens:
            where, starts = self.layout.rows, self.starts
        return with_routed_rows(ones, values.unsqueeze(-1), where, starts).squeeze(-1)

    def run_merged(
        self,
        indices: Tensor,
        merged: Tensor,
        run: Callable[[dict[str, Any]], BlockOutput],
        spread: Callable[[Tensor], Tensor],
    ) -> BlockOutput:
        """A block on tokens that stand for all, and all pinned rows.

        Args:
            indices: [B, K] int64, whose places they take.
            merged: [B, K, D], the tokens.
            run: The block.
            spread: From these after the block, [B, K, D], to all tokens, [B, N, D].
        """
        rows = self.rows_of(indices)
        before = with_routed_rows(
            gather_tokens(self.sequence, rows), merged, self._kept_where, None
        )
        output = run(self.at_rows(rows, before))
        after = sequence_of(self.layout, output)
        routed = spread(self._kept(after, indices.shape[1]))
        if rows.shape == indices.shape:
            return self.replaced(output, routed)
        everything = put_back(self.sequence, token_rows(rows, self.sequence.shape[1]), after)
        return self.replaced(output, self._with_routed(everything, routed))

    def run_all(
        self,
        run: Callable[[dict[str, Any]], BlockOutput],
        change: Callable[[Tensor, Tensor], Tensor],
    ) -> BlockOutput:
        """A block on everything; arguments as in `run_kept`."""
        output = run(self.arguments)
        return self.with_routed(output, change(self.routed, self.routed_of(output)))

    def routed_of(self, output: BlockOutput) -> Tensor:
        """The routed tokens [B, N, D] in what the block returned for these inputs."""
        after = sequence_of(self.layout, output)
        return routed_rows(after, self.tokens, self.layout.rows, self.starts)

    def with_routed(self, output: BlockOutput, routed: Tensor) -> BlockOutput:
        """What the block returned with other routed tokens, [B, N, D]."""
        return self.replaced(output, self._with_routed(sequence_of(self.layout, output), routed))

    def _with_routed(self, sequence: Tensor, routed: Tensor) -> Tensor:
        return with_routed_rows(sequence, routed, self.layout.rows, self.starts)

    @property
    def _kept_where(self) -> Where:
        """Where kept tokens lie among the rows that a block computes."""
        return "first" if self.layout.rows == "first" else "last"

    def _kept(self, sequence: Tensor, count: int) -> Tensor:
        return routed_rows(sequence, count, self._kept_where, None)

    def replaced(self, output: BlockOutput, sequence: Tensor) -> BlockOutput:
        """A block's output with other hidden states, [B, S, D]."""
        outputs = self.layout.outputs
        if not outputs:
            return sequence
        place = outputs.index(self.layout.hidden_states)
        return (*output[:place], sequence, *output[place + 1 :])


def sequence_of(layout: BlockLayout, output: BlockOutput) -> Tensor:
    """The hidden states in what a block returned.

    Raises:
        DiffCRError: It returned something else than its layout says.
    """
    outputs = layout.outputs
    if not outputs and isinstance(output, Tensor):
        return output
    if outputs and isinstance(output, tuple) and len(output) == len(outputs):
        sequence = output[outputs.index(layout.hidden_states)]
        if isinstance(sequence, Tensor):
            return sequence
    found = f"{len(output)} values" if isinstance(output, tuple) else type(output).__name__
    expected = f"({', '.join(outputs)})" if outputs else "a tensor"
    raise DiffCRError(
        f"a block returned {found} where {expected} is expected: its family is written for another "
        "version of diffusers"
    )


def combined(join: Callable[..., Tensor], *outputs: BlockOutput) -> BlockOutput:
    """Outputs of the same block joined, stream by stream; None where one has none."""
    if isinstance(outputs[0], Tensor):
        return join(*outputs)
    streams = zip(*outputs, strict=True)
    return tuple(None if any(s is None for s in stream) else join(*stream) for stream in streams)


def reordered(output: BlockOutput, samples: Tensor) -> BlockOutput:
    """A block's output with its samples in another order, [B] int64."""
    return combined(lambda stream: stream.index_select(0, samples), output)


def concatenated(*outputs: BlockOutput) -> BlockOutput:
    """Outputs for the samples of a batch, one after another."""
    return combined(lambda *parts: torch.cat(parts), *outputs)
