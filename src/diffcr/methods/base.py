"""What every method registers on a transformer, as `transformer.diffcr`, and its current call."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from diffcr.core.regions import region_of
from diffcr.errors import DiffCRError
from diffcr.hosts.grid import Grid
from diffcr.hosts.host import Host
from diffcr.methods.config import MethodConfig

ConfigT = TypeVar("ConfigT", bound=MethodConfig)
ContextT = TypeVar("ContextT")


@dataclass(frozen=True)
class TransformerCall:
    """What a method may ask of one call of the transformer.

    Attributes:
        noise_levels: In [0, 1], one per sample or one for all; None where they were not read.
        grid: Where the routed tokens lie.
        device: Where the tensors are.
        positions: The samples' tokens on the grid, [B, K] int64, row by row; None where each
            sample holds all of them.
        conditioning: The prompt's embeddings, the same tensor in all calls of a sampling run; None
            where the model has none.
        starts: First routed row of every sample in the blocks' sequence, [B] int64; None where it
            is the same in all.
    """

    noise_levels: list[float] | None
    grid: Grid
    device: torch.device
    positions: Tensor | None = None
    conditioning: Tensor | None = None
    starts: Tensor | None = None

    @property
    def tokens(self) -> int:
        """Routed tokens of a sample."""
        return self.grid.tokens if self.positions is None else self.positions.shape[1]


class CurrentCall(threading.local):
    """What a thread's call of the transformer needs while it runs; every thread has its own.

    Not a `ContextVar`, which torch.compile cannot trace (torch 2.13). A copy of the model starts
    with no call.

    Attributes:
        call: What was read of the call; None outside of one.
        context: What the method built for it; None outside of one.
        region: Timestep region that the caller gave, so that no timestep is read; None to read it.
        running: What a block tells its parts while it runs.
        schedule: The timesteps of a sampling run, where a call before has read them.
    """

    def __init__(self) -> None:
        self.call: TransformerCall | None = None
        self.context: Any = None
        self.region: int | None = None
        self.running: Any = None
        self.schedule: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> CurrentCall:
        return type(self)()

    def __reduce__(self) -> tuple[type[CurrentCall], tuple[()]]:
        return type(self), ()


class Attached(nn.Module, Generic[ConfigT, ContextT]):
    """A method on a transformer.

    Attributes:
        config: The method's configuration.
        base: The host's weights as the model was attached with them.
        enabled: False lets every block compute all tokens as the bare model does, in all threads.
        current: The calling thread's call.
        beneath: The method that was attached before this one; None for the first.
        replaces_weights: Whether the host holds parameters of the method's while it is enabled.
        needs_grid: Whether it has to know the rows and columns of the tokens' grid.
        keeps_steps: Whether a call depends on earlier ones of its sampling run, so that one call
            alone says nothing of its quality or time.
        hooks_blocks: Whether it hooks forwards that other methods bind: it is beneath all of them,
            and off while they are bound.
    """

    replaces_weights: ClassVar[bool] = False
    needs_grid: ClassVar[bool] = False
    keeps_steps: bool = False
    hooks_blocks: ClassVar[bool] = False

    def __init__(self, config: ConfigT, host: Host) -> None:
        super().__init__()
        self.config = config
        self.base = host.weights
        self.enabled = True
        self.current = CurrentCall()
        self.beneath: Attached[Any, Any] | None = None

    @property
    def timestep_regions(self) -> int:
        """Equal parts of the noise range that the method tells apart."""
        return 1

    @property
    def reads_timesteps(self) -> bool:
        """Whether a call has to look at its timesteps (a host sync on an accelerator)."""
        return self.timestep_regions > 1

    @property
    def region_names(self) -> tuple[str, ...] | None:
        """What the regions are called, clean to noisy; None for equal parts of the noise range."""
        return None

    def visited_regions(self, noise_levels: Sequence[float]) -> list[int | None]:
        """Region of every step of a sampling run, from the steps' noise levels in [0, 1]; None of
        a step that computes every token where no region does."""
        return [region_of(level, self.timestep_regions) for level in noise_levels]

    def forget_run(self) -> None:
        """Drop what the calling thread's sampling run left for its later steps."""

    def stack(self) -> Iterator[Attached[Any, Any]]:
        """This method, then those beneath it."""
        yield self
        if self.beneath is not None:
            yield from self.beneath.stack()

    def graph_key(self) -> Hashable | None:
        """What of the calling thread's call decides, beside the inputs' shapes, which operations
        run and on which constants; None where that cannot be told."""
        levels = self.call.noise_levels or ()
        return tuple(sorted({region_of(level, self.timestep_regions) for level in levels}))

    @property
    def depends_on_steps(self) -> bool:
        """Whether this method or one beneath it keeps what steps computed."""
        return any(method.keeps_steps for method in self.stack())

    def end_call(self) -> None:
        """A call of the transformer is through, or was broken off."""

    @abstractmethod
    def build_context(self, call: TransformerCall) -> ContextT:
        """What the blocks have to know of one call."""

    def describe(self) -> dict[str, Any]:
        """What a checkpoint says of the method beside its configuration."""
        return {}

    @abstractmethod
    def summary_lines(self) -> list[str]:
        """The state of the method, for people."""

    @property
    def call(self) -> TransformerCall:
        """The calling thread's call."""
        call = self.current.call
        assert call is not None, "a routed block was called outside of its transformer's forward"
        return call

    @property
    def context(self) -> ContextT:
        """The context of the calling thread's call."""
        context: ContextT | None = self.current.context
        assert context is not None, "a routed block was called outside of its transformer's forward"
        return context

    @contextmanager
    def entering(self, call: TransformerCall | None, context: ContextT | None) -> Iterator[None]:
        """Within the context manager, these are the calling thread's call and its context."""
        current = self.current
        previous = current.call, current.context
        current.call, current.context = call, context
        try:
            yield
        finally:
            current.call, current.context = previous

    @contextmanager
    def in_region(self, region: int) -> Iterator[None]:
        """Within the context the calling thread's samples all lie in timestep region `region`, and
        no timestep is read.

        Raises:
            DiffCRError: There is no such region.
        """
        if not 0 <= region < self.timestep_regions:
            raise DiffCRError(
                f"timestep region {region} does not exist: give 0 to {self.timestep_regions - 1}"
            )
        previous, self.current.region = self.current.region, region
        try:
            yield
        finally:
            self.current.region = previous
