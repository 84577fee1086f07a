"""Sampling runs, told from the calls of the transformer: what outlives a call belongs to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from diffcr.methods.base import CurrentCall


@dataclass
class SamplingRun:
    """The state of one sampling run of one prompt batch.

    It ends when the prompt's embeddings are freed or written to, and when a call's noise level does
    not fall.

    Attributes:
        noise_level: Of the last call, in [0, 1].
        conditioned: How often the prompt's embeddings had been written to when it began.
    """

    noise_level: float = float("inf")
    conditioned: int = 0

    def goes_on(self, noise_level: float, conditioned: int = 0) -> bool:
        """Whether a call at a noise level belongs to it."""
        return noise_level < self.noise_level and conditioned == self.conditioned


RunT = TypeVar("RunT", bound=SamplingRun)


class FollowingCall(CurrentCall, Generic[RunT]):
    """As `CurrentCall`, of a method that keeps what steps computed.

    Attributes:
        run_class: Of its runs.
        trajectories: Runs by the prompt's embeddings, which they do not outlive.
        unprompted: That of calls without embeddings.
    """

    run_class: ClassVar[type[SamplingRun]]

    def __init__(self) -> None:
        super().__init__()
        self.forget()

    def forget(self) -> None:
        """End all runs of this thread."""
        self.trajectories = WeakIdKeyDictionary()
        self.unprompted = self._begin()

    def _begin(self, conditioned: int = 0) -> RunT:
        begun: RunT = self.run_class(conditioned=conditioned)  # type: ignore[assignment]
        return begun

    def trajectory(self, conditioning: Tensor | None, noise_level: float) -> RunT:
        """The run that a call goes on with, or begins."""
        writes = 0
        if conditioning is not None and not conditioning.is_inference():
            writes = conditioning._version
        known: RunT | None = self.unprompted
        if conditioning is not None:
            known = self.trajectories.get(conditioning)
        if known is None or not known.goes_on(noise_level, writes):
            known = self._begin(writes)
            if conditioning is None:
                self.unprompted = known
            else:
                self.trajectories[conditioning] = known
        known.noise_level = noise_level
        return known

    def end(self, conditioning: Tensor | None) -> None:
        """End the run of a prompt's embeddings."""
        if conditioning is None:
            self.unprompted = self._begin()
        else:
            self.trajectories.pop(conditioning, None)

    def held(self) -> list[RunT]:
        """All runs of this thread."""
        return [self.unprompted, *self.trajectories.values()]
