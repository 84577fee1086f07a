"""The bypass "reuse": what a layer added to its tokens at earlier steps of a sampling run.

Shapes: B samples, N tokens, D width, K computed tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

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

    def keep_all(self, layer: int, before: Tensor, after: Tensor) -> None:
        """Take what a layer added to all tokens [B, N, D] in the present call."""
        self.reached[layer] = self.calls
        self.layers[layer] = KeptUpdates.of_all((after - before).to(before.dtype))

    def computed(self, layer: int, tokens: Tensor) -> None:
        """The layer's updates of `tokens` [B, K] int64 are those of the present call."""
        self.reached[layer] = self.calls
        self.layers[layer].ages.add_(1).scatter_(1, tokens, 1)

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
