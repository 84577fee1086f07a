"""Where a method takes hold of a block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from diffcr.methods.config import MethodConfig


@dataclass(frozen=True)
class Seam:
    """What takes the place of which forward.

    Attributes:
        block: Of every block; None leaves the blocks alone, and another method may bind them.
        parts: By the attribute of `BlockLayout` that names a part of a block.
    """

    block: Callable[..., Any] | None
    parts: Mapping[str, Callable[..., Any]] = field(default_factory=dict)


def no_seam(config: MethodConfig) -> Seam:
    """Of a method that leaves every forward alone."""
    return Seam(None)
