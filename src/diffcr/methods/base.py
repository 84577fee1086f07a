"""What every method registers on a transformer, as `transformer.diffcr`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffcr.cost.flops import LayerCost, TransformerShape
    from diffcr.hosts.weights import HostWeights
    from diffcr.methods.configurations import AttachedConfig


@dataclass(frozen=True)
class TransformerCall:
    """What a method may ask of one call of the transformer.

    Attributes:
        noise_levels: In [0, 1], one per sample or one for all; None where they were not read.
        rows: Of the grid that the routed tokens are on.
        columns: Of that grid.
        device: Where the tokens are.
        positions: The samples' tokens on the grid, [B, K] int64, row by row; None where each
            sample holds all of them.
    """

    noise_levels: list[float] | None
    rows: int
    columns: int
    device: torch.device
    positions: Tensor | None = None

    @property
    def tokens(self) -> int:
        """Routed tokens of a sample."""
        return self.rows * self.columns if self.positions is None else self.positions.shape[1]


ConfigT = TypeVar("ConfigT", bound="AttachedConfig")
ContextT = TypeVar("ContextT")


class Attached(nn.Module, Generic[ConfigT, ContextT]):
    """A method on a transformer, with the context of the transformer's current call.

    Attributes:
        config: The method's configuration.
        base: The host's weights as the model was attached with them.
        enabled: False lets every block compute all tokens as the bare model does.
        replaces_weights: Whether the host holds parameters of the method's while it is enabled.
    """

    replaces_weights: ClassVar[bool] = False

    def __init__(self, config: ConfigT, base: HostWeights) -> None:
        super().__init__()
        self.config = config
        self.base = base
        self.enabled = True
        self._context: ContextT | None = None

    @property
    def reads_timesteps(self) -> bool:
        """Whether a call has to look at its timesteps (a host sync on an accelerator)."""
        return self.config.timestep_regions > 1

    def changes_dense(self, transformer: nn.Module) -> bool:
        """Whether `diffcr.disabled` gives another model than the one that was attached to."""
        return not self.replaces_weights and self.base.have_changed(transformer)

    @abstractmethod
    def build_context(self, call: TransformerCall) -> ContextT:
        """What the blocks have to know of one call."""

    @abstractmethod
    def layer_costs(self, shape: TransformerShape) -> Sequence[Sequence[LayerCost]]:
        """What every layer computes at inference, [layers][regions]."""

    def describe(self) -> dict[str, Any]:
        """What a checkpoint says of the method beside its configuration."""
        return {}

    @abstractmethod
    def summary_lines(self) -> list[str]:
        """The state of the method, for people."""

    @property
    def context(self) -> ContextT:
        """The current call's context."""
        assert self._context is not None, (
            "a routed block was called outside of its transformer's forward"
        )
        return self._context

    @contextmanager
    def entering(self, context: ContextT) -> Iterator[None]:
        """Within the context, `context` is the current call's."""
        previous, self._context = self._context, context
        try:
            yield
        finally:
            self._context = previous

    def begin_call(self, context: ContextT) -> None:
        """Make `context` current until `end_call`."""
        self._context = context

    def end_call(self) -> None:
        """Forget the current call."""
        self._context = None
