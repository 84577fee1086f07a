"""Sampling runs, told from calls of a transformer: for methods that keep what steps computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from diffcr.methods.base import CurrentCall


@dataclass
class SamplingRun:
    """The calls of one sampling run of one prompt batch.

    It ends when the prompt's embeddings are freed or written to, or when a call's noise level does
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


class CallInRun(CurrentCall, Generic[RunT]):
    """As `CurrentCall`, with the thread's sampling runs.

    Attributes:
        run_type: Class of the runs.
        runs: By the prompt's embeddings, which they do not outlive.
        unprompted: That of calls without embeddings.
    """

    run_type: type[RunT]
    runs: Any
    unprompted: RunT

    def __init__(self) -> None:
        super().__init__()
        self.forget()

    def forget(self) -> None:
        """End all runs of this thread."""
        self.runs = WeakIdKeyDictionary()
        self.unprompted = self.run_type()

    def known(self) -> list[RunT]:
        """The runs that may go on."""
        return [self.unprompted, *self.runs.values()]

    def run(self, conditioning: Tensor | None, noise_level: float) -> RunT:
        """The one that a call goes on with, or begins."""
        writes = 0
        if conditioning is not None and not conditioning.is_inference():
            writes = conditioning._version
        known = self.unprompted if conditioning is None else self.runs.get(conditioning)
        if known is None or not known.goes_on(noise_level, writes):
            known = self.run_type(conditioned=writes)
            if conditioning is None:
                self.unprompted = known
            else:
                self.runs[conditioning] = known
        known.noise_level = noise_level
        return known

    def end(self, conditioning: Tensor | None) -> None:
        """End the run of a prompt's embeddings."""
        if conditioning is None:
            self.unprompted = self.run_type()
        else:
            self.runs.pop(conditioning, None)
