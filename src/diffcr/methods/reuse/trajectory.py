"""What outlives a call of the transformer: a trajectory, one sampling run of one prompt batch.

Shapes: B samples, N tokens, D width, K computed tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffcr.core.select import rank_tokens, token_rows
from diffcr.methods.sampling_runs import SamplingRun


@dataclass(frozen=True)
class KeptTokens:
    """The tokens that one call computes.

    Attributes:
        indices: [B, K] int64, from the one that changed most.
        rows: `core.select.token_rows` of the indices.
        shares: [B, 1, N], 1 / K for a computed token and 0 for another.
    """

    indices: Tensor
    rows: Tensor
    shares: Tensor


class Remembered:
    """A tensor per token, each row as of when its token was last computed.

    Attributes:
        rows: [B, N, D], detached but where it carries gradients. Written in place where no gradient
            flows: what a call got of it holds until the next one.
    """

    def __init__(self, computed: Tensor, carries_gradients: bool = False) -> None:
        kept = computed if carries_gradients else computed.detach()
        # A copy: hosts go on with what they computed.
        self.rows = kept.clone(memory_format=torch.contiguous_format)

    def take(self, computed: Tensor, kept: KeptTokens, drift: float) -> Tensor:
        """All rows with those of the computed tokens [B, K, D] in their places; the others move by
        `drift` times the mean change of these."""
        if torch.is_grad_enabled():
            # An earlier call's graph may hold what stands here.
            self.rows = self.rows.clone()
        if drift:
            before = kept.shares.to(self.rows.dtype) @ self.rows
            shift = drift * (computed.detach().mean(1, keepdim=True) - before)
            self.rows.add_(shift)
        updated = computed.to(self.rows.dtype).flatten(0, 1)
        if updated.requires_grad:
            present = self.rows.flatten(0, 1).index_copy(0, kept.rows, updated)
            self.rows = present.detach().view_as(self.rows)
            return present.view_as(self.rows)
        self.rows.flatten(0, 1).index_copy_(0, kept.rows, updated)
        return self.rows


@dataclass
class Trajectory(SamplingRun):
    """The state of one sampling run.

    It begins with a call that computes all tokens, and begins anew where a call's shape, dtype or
    device is another.

    Attributes:
        inputs: Tokens as they entered the first block when each was last computed; None before the
            first call is through.
        updates: What all blocks together added to each.
        parts: Keys and values of every layer's self-attention, by layer and name.
        owed: Steps that were to be skipped and have not been, in [0, 1): a step is skipped when it
            is one.
    """

    inputs: Remembered | None = None
    updates: Remembered | None = None
    parts: dict[tuple[int, str], Remembered] = field(default_factory=dict)
    owed: float = 0.5

    def skips_step(self, share: float) -> bool:
        """Whether the next step is skipped, where `share` of them are to be, evenly spread."""
        self.owed += share
        skips = self.owed >= 1
        self.owed -= skips
        return skips

    def fits(self, hidden_states: Tensor) -> bool:
        """Whether it holds something of tokens like these [B, N, D]."""
        if self.inputs is None or self.updates is None:
            return False
        known = self.inputs.rows
        if known.is_inference() and not torch.is_inference_mode_enabled():
            return False
        return (known.shape, known.dtype, known.device) == (
            hidden_states.shape,
            hidden_states.dtype,
            hidden_states.device,
        )

    def choose(self, hidden_states: Tensor, count: int, scattered: Tensor) -> KeptTokens:
        """The `count` tokens of [B, N, D] whose input changed most since they were computed.

        Samples of one prompt with and without guidance have the same input, and so the same tokens.
        """
        assert self.inputs is not None
        change = (hidden_states.detach() - self.inputs.rows).float().square().sum(-1)
        indices = rank_tokens(change, scattered)[:, :count]
        shares = torch.zeros_like(change).scatter_(1, indices, 1 / count).unsqueeze(1)
        return KeptTokens(indices, token_rows(indices, hidden_states.shape[1]), shares)

    @property
    def memory(self) -> int:
        """Bytes that are held."""
        held = [self.inputs, self.updates, *self.parts.values()]
        return sum(r.rows.numel() * r.rows.element_size() for r in held if r is not None)
