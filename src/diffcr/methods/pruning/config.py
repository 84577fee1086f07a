"""Structured pruning: a narrower model, whatever the token and the timestep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from diffcr.methods.config import MethodConfig
from diffcr.validation import between


@dataclass(frozen=True)
class StructuredPruningConfig(MethodConfig):
    """Structured pruning by magnitude: every block loses heads and feed-forward channels.

    Magnitude is the plain criterion that Diff-Pruning (Fang et al. 2023, arXiv 2305.10924) compares
    with. One share for all blocks; meant to be fine-tuned.

    Attributes:
        compression_ratio: Share of a block's operations in linear layers that goes, in [0, 0.9].
            Heads go whole, so it is met as nearly as channels can make up for them.
    """

    method: ClassVar[str] = "pruning"

    compression_ratio: Annotated[float, between(0, 0.9)] = 0.2
