"""The bypass "reuse": what a layer added to its tokens at earlier steps of a sampling run.

Shapes: B samples, N tokens, D width, K computed tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffcr.core.select import gather_tokens, token_rows
from diffcr.methods.sampling_runs import CallInRun, SamplingRun


@dataclass(frozen=True)
class KeptUpdates:
    """Of one layer.

    Attributes:
        updates: [B, N, D], what the layer added to each token when it was last computed; detached.
        ages: [B, N] int64, calls since then, 1 for the last one.
    """

    updates: Tensor
    ages: Tensor

    @classmethod
    def of_all(cls, updates: Tensor) -> KeptUpdates:
        """After a call that computed every token."""
        ages = torch.ones(updates.shape[:2], dtype=torch.int64, device=updates.device)
        return cls(updates.detach().contiguous(), ages)

    def fits(self, tokens: Tensor) -> bool:
        """Whether these are of tokens like `tokens` [B, N, D]."""
        held = self.updates
        if held.is_inference() and not torch.is_inference_mode_enabled():
            return False
        return (held.shape, held.dtype, held.device) == (tokens.shape, tokens.dtype, tokens.device)

    def stale_first(self, ranking: Tensor, max_age: int) -> Tensor:
        """A ranking [B, N] with the tokens first whose update is older than `max_age`, oldest
        first."""
        ages = self.ages.gather(1, ranking)
        stale = torch.where(ages > max_age, ages, 0)
        return ranking.gather(1, torch.argsort(stale, dim=1, descending=True, stable=True))

    def take(self, before: Tensor, after: Tensor, computed: Tensor) -> None:
        """The updates of a call in which the layer computed the tokens at `computed` [B, K] int64,
        in place: `before` and `after` are all tokens before and after it, [B, N, D]."""
        rows = token_rows(computed, before.shape[1])
        added = gather_tokens(after, computed, rows=rows) - gather_tokens(
            before, computed, rows=rows
        )
        held = self.updates.view(-1, before.shape[2])
        held.index_copy_(0, rows, added.detach().to(held.dtype).flatten(0, 1))
        self.ages.add_(1).scatter_(1, computed, 1)


@dataclass
class UpdateRun(SamplingRun):
    """As `SamplingRun`.

    Attributes:
        layers: What is kept, by layer; those that skip no token in any region keep nothing.
        calls: Calls of the run, the present one among them.
        reached: By layer, the last call that got to its end.
    """

    layers: dict[int, KeptUpdates] = field(default_factory=dict)
    calls: int = 0
    reached: dict[int, int] = field(default_factory=dict)

    def kept(self, layer: int, tokens: Tensor) -> KeptUpdates | None:
        """What there is of a layer after the last call, for tokens like these [B, N, D]."""
        if self.reached.get(layer) != self.calls - 1:
            return None
        kept = self.layers[layer]
        return kept if kept.fits(tokens) else None

    def keep(self, layer: int, before: Tensor, after: Tensor, computed: Tensor) -> None:
        """Take what a layer added in the present call, as in `KeptUpdates.take`."""
        self.reached[layer] = self.calls
        if computed.shape[1] == before.shape[1]:
            self.layers[layer] = KeptUpdates.of_all((after - before).to(before.dtype))
        else:
            self.layers[layer].take(before, after, computed)

    @property
    def memory(self) -> int:
        """Bytes that are held."""
        held = (t for layer in self.layers.values() for t in (layer.updates, layer.ages))
        return sum(tensor.numel() * tensor.element_size() for tensor in held)


class RoutedCall(CallInRun[UpdateRun]):
    """As `CallInRun`.

    Attributes:
        rankings: Token rankings [B, N] by layer that take the place of the routers'.
    """

    run_type = UpdateRun

    def __init__(self) -> None:
        super().__init__()
        self.rankings: dict[int, Tensor] = {}
